"""``s3seg token``: a ready-made access token for an installation without Supabase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.running import run
from s3seg.tasks.limits import Tier

if TYPE_CHECKING:
    from s3seg.app import Parts

app = typer.Typer()


@app.command("token")
def token(
    user: Annotated[
        str, typer.Option("--user", metavar="USER", help="A UUID, or any name: the same name is the same user.")
    ],
    tier: Annotated[
        Tier | None, typer.Option("--tier", metavar="TIER", help="Set the account's tier: free, pro or enterprise.")
    ] = None,
    ttl: Annotated[
        int, typer.Option("--ttl", metavar="SECONDS", min=1, help="How long the token is good for.")
    ] = 86_400,
) -> None:
    """Print an access token for USER, making the account if need be."""
    from s3seg.adapters.local_auth import user_id_of
    from s3seg.app import local_keys
    from s3seg.errors import ConfigurationError

    async def make_account(parts: Parts) -> str:
        if parts.settings.authenticator != "local":
            raise ConfigurationError(
                f"with S3SEG_AUTHENTICATOR={parts.settings.authenticator} nobody accepts tokens made here: "
                "take the user's access token from where they sign in"
            )
        await parts.accounts.ensure(user_id_of(user), tier=tier)
        return local_keys(parts.settings).mint(user, tier=tier, ttl_s=ttl)

    typer.echo(run(make_account))

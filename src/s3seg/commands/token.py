"""``s3seg token``: print an access token for an installation that signs its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.parts import run_with_parts
from s3seg.commands.users import lifetime, user_id
from s3seg.tasks.limits import Tier

if TYPE_CHECKING:
    from s3seg.app import Parts

app = typer.Typer()


@app.command("token")
def token(
    user: Annotated[
        str, typer.Option("--user", metavar="USER", help="A UUID, or a name, which always stands for the same user.")
    ],
    tier: Annotated[
        Tier | None, typer.Option("--tier", metavar="TIER", help="Set the account's tier: free, pro or enterprise.")
    ] = None,
    ttl: Annotated[
        int, typer.Option("--ttl", metavar="SECONDS", min=1, help="Seconds until the token expires.")
    ] = 86_400,
) -> None:
    """Print an access token for USER. The account is created if it does not exist."""
    from s3seg.app import local_keys
    from s3seg.errors import ConfigurationError

    async def make_token(parts: Parts) -> str:
        if parts.settings.authenticator != "local":
            raise ConfigurationError(
                f"S3SEG_AUTHENTICATOR={parts.settings.authenticator} does not accept tokens made here; "
                "use the access token that the user gets when signing in"
            )
        await parts.accounts.ensure(user_id(user), tier=tier)
        return local_keys(parts.settings).mint(user, tier=tier, ttl_s=ttl)

    typer.echo(run_with_parts(make_token))
    typer.echo(f"valid for {lifetime(ttl)}", err=True)

"""``s3seg admin``: maintenance of accounts, tasks and stored objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from s3seg.commands.parts import run_with_parts
from s3seg.tasks.limits import Tier

app = typer.Typer(help="Manage credits, tiers, unused objects and stuck tasks.", no_args_is_help=True)

_User = Annotated[str, typer.Argument(metavar="USER", help="A UUID, or the name of a local user.")]


@app.command(context_settings={"ignore_unknown_options": True})  # so that -100 is a number
def credits(
    user: _User, amount: Annotated[int, typer.Argument(metavar="CREDITS", help="+100 to add, -100 to remove.")]
) -> None:
    """Add credits to USER's account, or remove them. The ledger records it."""
    from s3seg.adapters.local_auth import user_id_of

    account = run_with_parts(lambda parts: parts.accounts.adjust(user_id_of(user), amount))
    typer.echo(f"{user}: {account.credits} credits")


@app.command()
def tier(user: _User, tier: Annotated[Tier, typer.Argument(metavar="TIER", help="free, pro or enterprise.")]) -> None:
    """Set the tier of USER's account."""
    from s3seg.adapters.local_auth import user_id_of

    account = run_with_parts(lambda parts: parts.accounts.ensure(user_id_of(user), tier=tier))
    typer.echo(f"{user}: tier {account.tier}, {account.credits} credits")


@app.command()
def gc(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=1, help="Keep objects younger than this.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, remove nothing.")] = False,
) -> None:
    """Remove stored objects that no image or result refers to."""
    from s3seg.tasks.maintenance import collect_garbage

    before = datetime.now(UTC) - timedelta(hours=older_than)
    garbage = run_with_parts(
        lambda parts: collect_garbage(parts.objects, parts.accounts, before=before, dry_run=dry_run)
    )
    verb = "would remove" if dry_run else "removed"
    typer.echo(
        f"{verb} {garbage.objects} objects ({garbage.size_bytes} bytes) and {garbage.partial_writes} partial writes"
    )


@app.command()
def reap() -> None:
    """End and refund tasks that are past their deadline or out of attempts."""
    from s3seg.tasks.maintenance import reap_all

    typer.echo(f"ended {run_with_parts(lambda parts: reap_all(parts.task_queue))} tasks")

"""``s3seg admin``: what an operator does to accounts, tasks and objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from s3seg.commands.running import run
from s3seg.tasks.limits import Tier

app = typer.Typer(help="Operate an installation: credits, tiers, garbage, stuck tasks.", no_args_is_help=True)

_User = Annotated[str, typer.Argument(metavar="USER", help="A UUID, or the name of a local user.")]


@app.command(context_settings={"ignore_unknown_options": True})  # so that -100 is a number
def credits(
    user: _User, amount: Annotated[int, typer.Argument(metavar="CREDITS", help="+100, or -100 to take.")]
) -> None:
    """Add credits to USER's account, or take them, through the ledger."""
    from s3seg.adapters.local_auth import user_id_of

    account = run(lambda parts: parts.accounts.adjust(user_id_of(user), amount))
    typer.echo(f"{user}: {account.credits} credits")


@app.command()
def tier(user: _User, tier: Annotated[Tier, typer.Argument(metavar="TIER", help="free, pro or enterprise.")]) -> None:
    """Set the tier of USER's account."""
    from s3seg.adapters.local_auth import user_id_of

    account = run(lambda parts: parts.accounts.ensure(user_id_of(user), tier=tier))
    typer.echo(f"{user}: tier {account.tier}, {account.credits} credits")


@app.command()
def gc(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=1, help="Younger objects stay.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove objects that no image and no result names."""
    from s3seg.tasks.maintenance import collect_garbage

    before = datetime.now(UTC) - timedelta(hours=older_than)
    found = run(lambda parts: collect_garbage(parts.objects, parts.accounts, before=before, dry_run=dry_run))
    verb = "would remove" if dry_run else "removed"
    typer.echo(f"{verb} {found.objects} objects ({found.size_bytes} bytes) and {found.partial_writes} partial writes")


@app.command()
def reap() -> None:
    """End and refund tasks that are past their deadline or out of attempts."""
    from s3seg.tasks.maintenance import reap_all

    typer.echo(f"ended {run(lambda parts: reap_all(parts.task_queue))} tasks")

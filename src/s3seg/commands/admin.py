"""``s3seg admin``: maintenance of accounts, tasks and stored objects."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.parts import run_with_parts
from s3seg.commands.users import User, user_id
from s3seg.errors import InvalidRequestError
from s3seg.tasks.backlog import Backlog, workers_for
from s3seg.tasks.limits import Tier

if TYPE_CHECKING:
    from s3seg.app import Parts
    from s3seg.tasks.maintenance import Removals
    from s3seg.tasks.records import Account

app = typer.Typer(help="Manage credits, tiers, unused objects and stuck tasks.", no_args_is_help=True)

_Create = Annotated[
    bool, typer.Option("--create", help="Create the account if the user has none, without asking. For scripts.")
]
_MOST_CREDITS = 1_000_000_000


@app.command(context_settings={"ignore_unknown_options": True})  # so that -100 is a number
def credits(
    user: User,
    amount: Annotated[
        int,
        typer.Argument(metavar="CREDITS", help="+100 to add, -100 to remove.", min=-_MOST_CREDITS, max=_MOST_CREDITS),
    ],
    create: _Create = False,
) -> None:
    """Add credits to USER's account, or remove them. The ledger records it."""

    async def work(parts: Parts) -> Account:
        account_id = user_id(user)
        if not create:
            await _confirm_new_account(parts, user, account_id)
        return await parts.accounts.adjust(account_id, amount)

    account = run_with_parts(work)
    typer.echo(f"{user}: {account.credits} credits")


@app.command()
def tier(
    user: User,
    tier: Annotated[Tier, typer.Argument(metavar="TIER", help="free, pro or enterprise.")],
    create: _Create = False,
) -> None:
    """Set the tier of USER's account."""

    async def work(parts: Parts) -> Account:
        account_id = user_id(user)
        if not create:
            await _confirm_new_account(parts, user, account_id)
        return await parts.accounts.ensure(account_id, tier=tier)

    account = run_with_parts(work)
    typer.echo(f"{user}: tier {account.tier}, {account.credits} credits")


async def _confirm_new_account(parts: Parts, user: str, account_id: str) -> None:
    """Ask before an account is created for a user who has none: the name may be misspelt.

    Raises:
        typer.Abort: The answer is no.
        InvalidRequestError: Nobody can answer.
    """
    if await parts.accounts.known_users([account_id]):
        return
    unknown = f"the user {user!r} ({account_id}) has no account here"
    if not _can_ask():
        raise InvalidRequestError(f"{unknown}; check the spelling, or add --create to create the account")
    typer.confirm(f"{unknown}. Create the account?", abort=True, err=True)


def _can_ask() -> bool:
    return sys.stdin.isatty()


@app.command()
def revoke(user: User) -> None:
    """Revoke all access tokens of USER, within a minute; tokens printed afterwards are valid."""
    from s3seg.app import Settings, revoked_tokens
    from s3seg.errors import ConfigurationError

    settings = Settings()
    if settings.authenticator != "local":
        raise ConfigurationError(
            f"S3SEG_AUTHENTICATOR={settings.authenticator}: its tokens are not issued here; sign "
            "the user out, or ban the user, where they are"
        )
    revoked_tokens(settings).revoke(user_id(user))
    typer.echo(f"{user}: all tokens are revoked; services stop accepting them within a minute")


@app.command()
def gc(
    older_than: Annotated[
        float,
        typer.Option("--older-than", metavar="HOURS", min=1, max=1_000_000, help="Keep objects younger than this."),
    ] = 24.0,
    unknown_users: Annotated[
        bool,
        typer.Option(
            "--unknown-users",
            help="Remove objects of users who have no account in this database too. With the wrong database, these are "
            "all objects.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, remove nothing.")] = False,
) -> None:
    """Remove stored objects that no image or result refers to.

    Those of users who have no account in this database are kept, and counted.
    """
    from s3seg.tasks.maintenance import collect_garbage

    if math.isnan(older_than):  # typer's limits let it pass
        raise InvalidRequestError("--older-than must be a number of hours, got nan")
    before = datetime.now(UTC) - timedelta(hours=older_than)
    garbage = run_with_parts(
        lambda parts: collect_garbage(
            parts.objects, parts.accounts, before=before, dry_run=dry_run, unknown_users=unknown_users
        )
    )
    verb = "would remove" if dry_run else "removed"
    typer.echo(
        f"{verb} {garbage.objects} objects ({garbage.size_bytes} bytes) and {garbage.partial_writes} partial writes"
    )
    if garbage.kept_objects:
        typer.echo(
            f"kept {garbage.kept_objects} objects ({garbage.kept_size_bytes} bytes) of {garbage.kept_users} users who "
            "have no account in this database; if it is the right one, and no other installation uses this storage, "
            "add --unknown-users to remove them too",
            err=True,
        )


@app.command()
def expire() -> None:
    """Remove images and results that have ended, and what deleted accounts still have."""
    from s3seg.tasks.maintenance import remove_ended

    removed = run_with_parts(lambda parts: remove_ended(parts.objects, parts.accounts))
    typer.echo(_described(removed))


def _described(removed: Removals) -> str:
    return (
        f"removed {removed.images} images, {removed.results} results and {removed.objects} objects; "
        f"{removed.accounts} deleted accounts have nothing left"
    )


@app.command("delete-account")
def delete_account(
    user: User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. For scripts.")] = False,
) -> None:
    """Delete USER's account and all that it has, for ever; its tokens are refused from then on."""
    from s3seg.tasks.maintenance import remove_ended
    from s3seg.tasks.retention import KEPT_OF_ACCOUNTS

    account_id = user_id(user)

    async def work(parts: Parts) -> Removals:
        if not await parts.accounts.known_users([account_id]):
            raise InvalidRequestError(f"the user {user!r} ({account_id}) has no account here; check the spelling")
        if not yes:
            if not _can_ask():
                raise InvalidRequestError(f"this deletes all that {user!r} has, for ever; add --yes to confirm")
            typer.confirm(f"Delete the account of {user!r} ({account_id}) and all that it has?", abort=True, err=True)
        await parts.accounts.close(account_id)
        return await remove_ended(parts.objects, parts.accounts)

    typer.echo(_described(run_with_parts(work)))
    for kept in KEPT_OF_ACCOUNTS:
        typer.echo(f"kept: {kept}")


@app.command("export-account")
def export_account(
    user: User,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar archive to make; must not exist.")],
) -> None:
    """Save all that USER has as a tar archive. Not with Supabase, where it takes the user's own token."""
    from s3seg.edge.export import AccountExport
    from s3seg.errors import ConfigurationError
    from s3seg.tasks.private_files import open_private
    from s3seg.tasks.records import Identity

    account_id = user_id(user)

    async def work(parts: Parts) -> None:
        if parts.settings.task_store == "supabase":
            raise ConfigurationError(
                "with S3SEG_TASK_STORE=supabase, rows are read with the user's own token: the user can run "
                "`s3seg export-account`"
            )
        if not await parts.accounts.known_users([account_id]):
            raise InvalidRequestError(f"the user {user!r} ({account_id}) has no account here; check the spelling")
        export = AccountExport(
            Identity(user_id=account_id), tasks=parts.task_store, objects=parts.objects, webhooks=parts.webhooks
        )
        try:
            with open(file, "xb", opener=open_private) as archive:
                async for chunk in export.chunks():
                    archive.write(chunk)
        except FileExistsError:
            raise InvalidRequestError(f"{file} exists already; remove it, or choose another name") from None

    run_with_parts(work)
    typer.echo(f"{file}: {file.stat().st_size} bytes")


@app.command()
def backlog(
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait", metavar="SECONDS", min=1, help="Show how many workers it takes to do every task within SECONDS."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", metavar="TASKS", min=0.001, help="Tasks per second that one worker does; measured if not given."
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price", metavar="AMOUNT", min=0, help="What one worker costs per hour.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for programs that start and stop workers.")
    ] = False,
) -> None:
    """Show how many tasks wait and for how long, and how many workers would keep up."""
    import json
    from dataclasses import asdict

    if wait is None and (rate is not None or price is not None):
        raise InvalidRequestError("--rate and --price are for planning; say with --wait how long a task may take")
    found = run_with_parts(lambda parts: parts.task_queue.backlog())
    plan = None if wait is None else _plan(found, wait=wait, rate=rate, price=price)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "done_per_s": found.rate, **({} if plan is None else asdict(plan))}))
        return
    typer.echo(f"waiting   {found.waiting} tasks, the oldest for {found.oldest_wait_s:.0f} s")
    typer.echo(f"running   {found.running} tasks on {found.workers} workers")
    typer.echo(f"done      {found.rate:.2f} tasks a second over the last 5 minutes")
    if plan is not None:
        typer.echo(plan.sentence())


@dataclass(frozen=True, slots=True)
class _Plan:
    """How many workers do every task in time, and what they cost."""

    wait_s: float
    rate_per_worker: float
    workers_needed: int
    cost_per_hour: float | None

    def sentence(self) -> str:
        """Return the plan as a sentence."""
        cost = "" if self.cost_per_hour is None else f", which cost {self.cost_per_hour:g} an hour"
        return (
            f"needed    {self.workers_needed} workers at {self.rate_per_worker:.2f} tasks a second each, "
            f"to do every task within {self.wait_s:g} s{cost}"
        )


def _plan(backlog: Backlog, *, wait: float, rate: float | None, price: float | None) -> _Plan:
    """Plan workers from what is done now; new tasks are assumed to arrive as fast as tasks were done lately.

    Raises:
        InvalidRequestError: No rate is given, and none can be measured, since no worker is doing anything.
    """
    if rate is None:
        if not backlog.workers or not backlog.ended_recently:
            raise InvalidRequestError(
                "the rate of a worker cannot be measured, since none has done a task in the last 5 minutes or none "
                "holds one now; pass --rate with the tasks per second that one worker does"
            )
        rate = backlog.rate / backlog.workers
    needed = workers_for(arrivals=backlog.rate, waiting=backlog.waiting, wait_s=wait, rate=rate)
    return _Plan(wait, rate, needed, None if price is None else needed * price)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, or a backup to bring up to date.")],
) -> None:
    """Copy database, objects and signing key into FOLDER, while the services run."""
    from s3seg.app.backup import back_up

    info = run_with_parts(lambda parts: back_up(parts, folder, progress=_report_copied))
    typer.echo(f"{folder}: {info.tasks} tasks and {info.objects - info.missing} objects, as of {info.created_at}")
    if info.missing:
        typer.echo(f"{info.missing} objects were deleted while the backup was taken", err=True)
    if (folder / "signing-key.pem").exists():
        typer.echo("the backup holds the key that signs tokens: keep it as safe as a password", err=True)


@app.command()
def restore(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A backup.")]) -> None:
    """Restore a backup into an empty S3SEG_DATA_DIR; then start the services on it."""
    from s3seg.app.backup import restore as restore_backup
    from s3seg.app.settings import Settings

    info = run_with_parts(lambda parts: restore_backup(parts, folder, progress=_report_copied))
    typer.echo(f"restored {info.tasks} tasks and {info.objects - info.missing} objects, as of {info.created_at}")
    if info.public_base_url != Settings().public_base_url:
        typer.echo(
            f"the backup's services had S3SEG_PUBLIC_BASE_URL={info.public_base_url}; set it to the same value, since "
            "it is part of the URL of every stored image",
            err=True,
        )


def _report_copied(copied: int) -> None:
    if copied % 1000 == 0:
        typer.echo(f"{copied} objects copied ...", err=True)


@app.command()
def reap() -> None:
    """End and refund tasks that are past their deadline or out of attempts."""
    from s3seg.tasks.maintenance import reap_all

    typer.echo(f"ended {run_with_parts(lambda parts: reap_all(parts.task_queue))} tasks")

"""Maintenance: end tasks that cannot finish, remove what has ended, and collect garbage; on a schedule or by hand."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from s3seg.errors import UnavailableError
from s3seg.tasks.object_keys import owner_of
from s3seg.tasks.ports import Accounts, ObjectStore, TaskQueue
from s3seg.tasks.records import ObjectInfo

_log = logging.getLogger(__name__)
_KEYS_PER_QUERY = 500
_KEEP_H = 24.0
_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect_garbage` found, and removed unless it was a dry run.

    Attributes:
        objects: Number of objects that no row refers to.
        size_bytes: Total size of these objects.
        partial_writes: Number of writes that were never completed; 0 in a dry run.
        kept_objects: Number of objects that no row refers to and that were kept, since their users have no account
            here; 0 if those of unknown users were to be removed.
        kept_size_bytes: Total size of these objects.
        kept_users: Number of the users of these objects.
    """

    objects: int
    size_bytes: int
    partial_writes: int
    kept_objects: int
    kept_size_bytes: int
    kept_users: int


async def collect_garbage(
    objects: ObjectStore,
    accounts: Accounts,
    *,
    before: datetime,
    dry_run: bool = False,
    unknown_users: bool = False,
) -> Collected:
    """Remove objects that no image and no result refers to.

    Such objects are left behind by a crash between storing an object and writing its row. Objects of other programs
    in the same bucket are never removed.

    Args:
        objects: The store to clean up.
        accounts: Knows which objects are in use.
        before: Consider only objects older than this: the row of a newer one may not have been written yet.
        dry_run: Count the objects, but remove nothing.
        unknown_users: Remove objects of users who have no account here too. By default they are kept, in case another
            installation of s3seg shares the bucket, or the database is not the right one.
    """
    removed = removed_bytes = kept = kept_bytes = 0
    unknown_owners: set[str | None] = set()
    old: list[ObjectInfo] = []

    async def remove_unreferenced() -> None:
        nonlocal removed, removed_bytes, kept, kept_bytes
        in_use = await accounts.referenced([info.key for info in old])
        unused = [info for info in old if info.key not in in_use]
        if not unknown_users:
            owners = {info.key: owner_of(info.key) for info in unused}
            known = await accounts.known_users(sorted({owner for owner in owners.values() if owner is not None}))
            foreign = [info for info in unused if owners[info.key] not in known]
            kept += len(foreign)
            kept_bytes += sum(info.size_bytes for info in foreign)
            unknown_owners.update(owners[info.key] for info in foreign)
            unused = [info for info in unused if owners[info.key] in known]
        for info in unused:
            if not dry_run:
                await objects.delete(info.key)
            removed += 1
            removed_bytes += info.size_bytes
        old.clear()

    async for info in objects.list("users/"):
        if info.modified_at < before and owner_of(info.key) is not None:  # others may share the bucket
            old.append(info)
        if len(old) == _KEYS_PER_QUERY:
            await remove_unreferenced()
    await remove_unreferenced()
    partial = 0 if dry_run else await objects.discard_partial_writes(before)
    return Collected(
        objects=removed,
        size_bytes=removed_bytes,
        partial_writes=partial,
        kept_objects=kept,
        kept_size_bytes=kept_bytes,
        kept_users=len(unknown_owners),
    )


@dataclass(slots=True, kw_only=True)
class Removals:
    """How much was removed.

    Attributes:
        images, results: Whose time was over, or whose account was deleted.
        objects: Stored objects of these.
        accounts: Deleted accounts of which nothing is left to remove.
        garbage: Stored objects that nothing referred to.
    """

    images: int = 0
    results: int = 0
    objects: int = 0
    accounts: int = 0
    garbage: int = 0

    def add(self, more: Removals) -> None:
        """Add another count to this one."""
        for name in ("images", "results", "objects", "accounts", "garbage"):
            setattr(self, name, getattr(self, name) + getattr(more, name))


async def remove_ended(objects: ObjectStore, accounts: Accounts, *, removals: Removals | None = None) -> Removals:
    """Remove images and results whose time is over, and everything that deleted accounts have.

    Rows are removed before their objects, so that no row refers to an object that is gone. If this is interrupted,
    objects of deleted accounts are removed the next time, since their accounts are not recorded as emptied, and other
    objects by the garbage collection.

    Args:
        objects: The store of the objects.
        accounts: The store of the rows.
        removals: Counts what is removed, as it is removed; a new count if not given.
    """
    removals = removals or Removals()
    while True:
        batch = await accounts.collect()
        if not (batch.images or batch.results):
            break
        removals.images += batch.images
        removals.results += batch.results
        for key in batch.object_keys:
            try:
                await objects.delete(key)
            except UnavailableError as err:
                _log.warning("could not delete an object, leaving it to garbage collection: %s", err)
            else:
                removals.objects += 1
    while users := await accounts.closed_accounts():
        for user_id in users:
            async for info in objects.list(f"users/{user_id}/"):
                await objects.delete(info.key)
                removals.objects += 1
            await accounts.emptied(user_id)
            removals.accounts += 1
    return removals


async def reap_all(queue: TaskQueue) -> int:
    """End and refund every task that is past its deadline or out of attempts, and return how many there were."""
    ended = 0
    while batch := await queue.reap():
        ended += len(batch)
    return ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A recurring job.

    Attributes:
        name: The name under which services agree who does it.
        every_s: Seconds from one begin to the next.
        run: Does it, and returns what was done for the log, or None if there was nothing to do.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[str | None]]


def reaping(queue: TaskQueue, *, every_s: float) -> Job:
    """Return the job that ends and refunds tasks that cannot finish."""

    async def run() -> str | None:
        ended = await reap_all(queue)
        return f"ended {ended} tasks that were past their deadline or out of attempts" if ended else None

    return Job(name="reap", every_s=every_s, run=run)


def removing_ended(
    objects: ObjectStore, accounts: Accounts, *, every_s: float, removals: Removals | None = None
) -> Job:
    """Return the job that removes what has ended, and what deleted accounts have."""

    async def run() -> str | None:
        now = Removals()
        try:
            await remove_ended(objects, accounts, removals=now)
        finally:  # what was removed before an error is counted too
            if removals is not None:
                removals.add(now)
        if now == Removals():
            return None
        return (
            f"removed {now.images} images, {now.results} results and {now.objects} objects that had ended or were of "
            f"deleted accounts, of which {now.accounts} have nothing left"
        )

    return Job(name="expire", every_s=every_s, run=run)


def garbage_collection(
    objects: ObjectStore, accounts: Accounts, *, every_s: float, removals: Removals | None = None
) -> Job:
    """Return the job that removes the objects of this installation's users that nothing refers to, after a day."""

    async def run() -> str | None:
        before = datetime.now(UTC) - timedelta(hours=_KEEP_H)
        found = await collect_garbage(objects, accounts, before=before)
        if not found.objects and not found.partial_writes:
            return None
        if removals is not None:
            removals.garbage += found.objects
        return f"removed {found.objects} unused objects and {found.partial_writes} partial writes"

    return Job(name="gc", every_s=every_s, run=run)


class Maintenance:
    """Does recurring jobs in the background of a service; of all services on the same data, one does each job.

    Args:
        accounts: Records when each job was last begun.
        jobs: The jobs.
        pause_s: Average number of seconds between two looks for jobs that are due. Each pause is up to half longer or
            shorter, so that services that start together do not look at the same time.
    """

    def __init__(self, accounts: Accounts, jobs: Sequence[Job], *, pause_s: float | None = None) -> None:
        self._accounts = accounts
        self._jobs = jobs
        self._pause_s = _PAUSE_S if pause_s is None else pause_s
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loop."""
        if self._jobs and self._loop is None:
            self._loop = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop the loop; a job that is running is interrupted, and done again when it is next due."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def run_due(self) -> list[str]:
        """Do the jobs that are due, and return their names. Failures are logged."""
        begun: list[str] = []
        for job in self._jobs:
            try:
                if await self._accounts.begin_job(job.name, every_s=job.every_s):
                    begun.append(job.name)
                    if done := await job.run():
                        _log.info("maintenance: %s", done)
            except Exception as err:
                _log.warning("maintenance: the job %r failed and will be tried again: %s", job.name, err)
        return begun

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))  # noqa: S311 (not for security)
            await self.run_due()

"""Maintenance that operators run from time to time: collect garbage, and end tasks that cannot finish."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from s3seg.tasks.object_keys import owner_of
from s3seg.tasks.ports import Accounts, ObjectStore, TaskQueue
from s3seg.tasks.records import ObjectInfo

_KEYS_PER_QUERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect_garbage` found, and removed unless it was a dry run.

    Attributes:
        objects: Number of objects that no row refers to.
        size_bytes: Total size of these objects.
        partial_writes: Number of writes that were never completed; 0 in a dry run.
    """

    objects: int
    size_bytes: int
    partial_writes: int


async def collect_garbage(
    objects: ObjectStore, accounts: Accounts, *, before: datetime, dry_run: bool = False
) -> Collected:
    """Remove objects that no image and no result refers to.

    Such objects are left behind by a crash between storing an object and writing its row.

    Args:
        objects: The store to clean up.
        accounts: Knows which objects are in use.
        before: Consider only objects older than this: the row of a newer one may not have been written yet.
        dry_run: Count the objects, but remove nothing.
    """
    removed = removed_bytes = 0
    old: list[ObjectInfo] = []

    async def remove_unreferenced() -> None:
        nonlocal removed, removed_bytes
        in_use = await accounts.referenced([info.key for info in old])
        for info in old:
            if info.key in in_use:
                continue
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
    return Collected(objects=removed, size_bytes=removed_bytes, partial_writes=partial)


async def reap_all(queue: TaskQueue) -> int:
    """End and refund every task that is past its deadline or out of attempts, and return how many there were."""
    ended = 0
    while batch := await queue.reap():
        ended += len(batch)
    return ended

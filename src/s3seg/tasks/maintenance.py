"""What an operator runs now and then: collect garbage, end hopeless tasks. Knows ports only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from s3seg.tasks.ports import Accounts, ObjectStore, TaskQueue
from s3seg.tasks.records import ObjectInfo

_ASKED_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect_garbage` found (and removed, unless told only to look).

    Attributes:
        objects: Objects that no row names.
        size_bytes: Their size together.
        partial_writes: Writes that were never completed.
    """

    objects: int
    size_bytes: int
    partial_writes: int


async def collect_garbage(
    objects: ObjectStore, accounts: Accounts, *, before: datetime, dry_run: bool = False
) -> Collected:
    """Remove objects that no image and no result names.

    A crash between storing an object and writing its row leaves such objects; nothing else does, and nothing
    refers to them.

    Args:
        objects: Where they lie.
        accounts: Which of them are named.
        before: Only objects older than this, since a younger one's row may be about to be written.
        dry_run: Count, but remove nothing.
    """
    removed = removed_bytes = 0
    old: list[ObjectInfo] = []

    async def sift() -> None:
        nonlocal removed, removed_bytes
        named = await accounts.referenced([info.key for info in old])
        for info in old:
            if info.key in named:
                continue
            if not dry_run:
                await objects.delete(info.key)
            removed += 1
            removed_bytes += info.size_bytes
        old.clear()

    async for info in objects.list("users/"):
        if info.modified_at < before:
            old.append(info)
        if len(old) == _ASKED_AT_ONCE:
            await sift()
    await sift()
    partial = 0 if dry_run else await objects.discard_partial_writes(before)
    return Collected(objects=removed, size_bytes=removed_bytes, partial_writes=partial)


async def reap_all(queue: TaskQueue) -> int:
    """End and refund every task that is past its deadline or out of attempts; how many there were."""
    ended = 0
    while batch := await queue.reap():
        ended += len(batch)
    return ended

"""Waking a claim loop in the same process."""

from __future__ import annotations

import asyncio

from s3seg.tasks.model import Task


class MemoryNotifier:
    """A `WorkerNotifier` within one process: a claim loop waits on it instead of sleeping."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    async def wake(self, task: Task) -> None:
        """See `WorkerNotifier.wake`."""
        self._woken.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until someone wakes us; False if nobody did in time. Wakes between waits are not lost."""
        try:
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def check(self) -> None:
        """See `Part.check`."""

    async def aclose(self) -> None:
        """See `Part.aclose`."""

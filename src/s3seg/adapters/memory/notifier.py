"""Notifies a claim loop in the same process of new tasks."""

from __future__ import annotations

import asyncio

from s3seg.tasks.model import Task


class MemoryNotifier:
    """A `WorkerNotifier` within one process, on which a claim loop waits instead of sleeping."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    async def wake(self, task: Task) -> None:
        """Wake the waiting claim loop; if none is waiting, the next call of `wait` returns at once."""
        self._woken.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for `wake` to be called, and return whether it was called in time; earlier calls count too."""
        try:
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

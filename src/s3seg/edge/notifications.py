"""Telling workers about new tasks without making the client wait for it."""

from __future__ import annotations

import asyncio
import logging

from s3seg.tasks.model import Task
from s3seg.tasks.ports import WorkerNotifier

_log = logging.getLogger("s3seg.edge")
_MAX_PENDING = 256


class WorkerNotifications:
    """Sends wake-up calls in the background. A lost one does no harm: workers poll the queue too.

    Args:
        notifier: Makes the calls.
    """

    def __init__(self, notifier: WorkerNotifier) -> None:
        self._notifier = notifier
        self._pending: set[asyncio.Task[None]] = set()

    def send(self, task: Task) -> None:
        """Start a wake-up call for the task, unless too many are pending."""
        if len(self._pending) >= _MAX_PENDING:
            return
        call = asyncio.create_task(self._wake(task))
        self._pending.add(call)
        call.add_done_callback(self._pending.discard)

    async def aclose(self, *, finish_s: float = 0.0) -> None:
        """Give the calls that are pending ``finish_s`` seconds, and cancel them."""
        pending = list(self._pending)
        if pending and finish_s:
            await asyncio.wait(pending, timeout=finish_s)
        for call in pending:
            call.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _wake(self, task: Task) -> None:
        try:
            await self._notifier.wake(task)
        except Exception as err:  # an adapter may break its promise not to raise; the task is accepted all the same
            _log.warning(
                "wake-up call to the workers failed: %s; they will find the task when they poll",
                type(err).__name__,
                extra={"task_id": task.task_id},
            )

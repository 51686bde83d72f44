"""Following a task until it ends, by looking at it: edge and workers may share nothing but the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from s3seg.tasks.model import Task

_FIRST_PAUSE_S = 0.02
_GROWTH = 1.5
_LONGEST_PAUSE_S = 0.5


async def changes(load: Callable[[], Awaitable[Task]], *, timeout_s: float) -> AsyncGenerator[Task, None]:
    """Give a task as it is, then each time its status has changed, until it has ended or time is over.

    Args:
        load: Reads the task; looked at often at first, at last twice a second.
        timeout_s: Seconds after which to stop; the task may not have ended then.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + timeout_s
    pause = _FIRST_PAUSE_S
    task = await load()
    yield task
    while not task.ended and loop.time() < give_up:
        await asyncio.sleep(min(pause, max(0.0, give_up - loop.time())))
        pause = min(pause * _GROWTH, _LONGEST_PAUSE_S)
        before, task = task.status, await load()
        if task.status != before:
            yield task

"""Following a task until it ends, by polling the store: the edge and the workers may share nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from s3seg.edge.concurrency import UserShares
from s3seg.errors import AuthInvalidError, UnavailableError
from s3seg.tasks.model import Task
from s3seg.tasks.ports import TaskStore
from s3seg.tasks.records import Identity

_FIRST_PAUSE_S = 0.02
_GROWTH = 1.5


class TaskWatcher:
    """Follows tasks for callers that wait, up to a number of them at the same time.

    Args:
        tasks: Where tasks are read.
        watchers: Counts the callers that wait.
        longest_pause_s: Seconds between two readings of a task, after the first ones.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        tasks: TaskStore,
        *,
        watchers: UserShares,
        longest_pause_s: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._watchers = watchers
        self._longest_pause_s = longest_pause_s

    def has_room(self, caller: Identity) -> bool:
        """Whether one more request of the caller may wait."""
        return self._watchers.has_room(caller.user_id)

    def require_room(self, caller: Identity) -> None:
        """Raise `UnavailableError` unless one more request of the caller may wait."""
        if not self.has_room(caller):
            raise UnavailableError("too many requests are waiting for tasks; poll instead, or try again", retry_after=5)

    async def watch(self, caller: Identity, task_id: str, *, timeout_s: float) -> AsyncGenerator[Task, None]:
        """Yield the task as it is, then after each change of its status, until it has ended or time is up.

        Raises:
            UnavailableError: Others have taken the place since the caller asked for it.
            AuthInvalidError: The caller's token expired meanwhile. Not every store checks tokens, so this is checked
                before each reading.
        """

        async def load() -> Task:
            if caller.expires_at is not None and self._clock() >= caller.expires_at.timestamp():
                raise AuthInvalidError("the token has expired")
            return await self._tasks.get_task(caller, task_id)

        self.require_room(caller)
        place = self._watchers.take(caller.user_id)
        try:
            states = changes(load, timeout_s=timeout_s, longest_pause_s=self._longest_pause_s)
            async with contextlib.aclosing(states):
                async for task in states:
                    yield task
        finally:
            self._watchers.give_back(place)


async def changes(
    load: Callable[[], Awaitable[Task]], *, timeout_s: float, longest_pause_s: float = 0.5
) -> AsyncGenerator[Task, None]:
    """Yield a task as it is, then after each change of its status, until it has ended or time is up.

    Args:
        load: Reads the task. It is called often at first.
        timeout_s: Seconds after which to stop; the task may not have ended by then.
        longest_pause_s: Seconds between two readings, after the first ones.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + timeout_s
    pause = _FIRST_PAUSE_S
    task = await load()
    yield task
    while not task.ended and loop.time() < give_up:
        await asyncio.sleep(min(pause, max(0.0, give_up - loop.time())))
        pause = min(pause * _GROWTH, longest_pause_s)
        before, task = task.status, await load()
        if task.status != before:
            yield task

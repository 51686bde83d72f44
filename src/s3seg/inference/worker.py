"""A process that works on tasks: it claims what waits, answers those who ask for one task, and drains.

Any number of workers share one queue; each can be added or killed at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from s3seg.errors import LeaseLostError, S3segError, UnavailableError
from s3seg.inference.pipeline import Pipeline
from s3seg.tasks.model import Claim, Task
from s3seg.tasks.ports import TaskQueue

_log = logging.getLogger(__name__)
_REAP_EVERY_S = 15.0
_LONGEST_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How much a worker takes on.

    Attributes:
        claimed: Tasks that it works on by itself at a time: enough to keep the network busy, and no more, so that
            other workers get their share.
        admitted: Requests and own tasks together beyond which it refuses requests.
        lease_s: Seconds that a fresh lease is good for.
        poll_s: Seconds between looks at the queue while idle.
    """

    claimed: int = 24
    admitted: int = 96
    lease_s: float = 60.0
    poll_s: float = 1.0


@dataclass(slots=True, eq=False)
class _Running:
    """A prediction that goes on in this process."""

    work: asyncio.Task[Task]
    begun: bool = False
    asked_for: int = 0
    """Requests that wait for it."""
    own: bool = False
    """Claimed by the loop, rather than for a request."""


class Worker:
    """Claims and runs tasks; made and used on one event loop.

    Args:
        queue: Where tasks wait.
        pipeline: What is done with one.
        ready: Whether the network can be used; nothing is claimed before.
        limits: See `WorkerLimits`.
        wait_for_work: Waits at most so many seconds for a sign that work has come; by default just sleeps.
        name: Of this worker, in leases; unique.
    """

    def __init__(
        self,
        queue: TaskQueue,
        pipeline: Pipeline,
        *,
        ready: Callable[[], bool] = lambda: True,
        limits: WorkerLimits | None = None,
        wait_for_work: Callable[[float], Awaitable[object]] = asyncio.sleep,
        name: str | None = None,
    ) -> None:
        self._queue = queue
        self._pipeline = pipeline
        self._ready = ready
        self._limits = limits or WorkerLimits()
        self._wait_for_work = wait_for_work
        self.name = name or f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}"
        self._running: dict[str, _Running] = {}
        self._requests = 0
        self._draining = asyncio.Event()
        self._draining_since = 0.0
        self._room = asyncio.Event()
        self._ended_at: deque[float] = deque(maxlen=64)
        self._loop: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """Requests that wait here, and tasks in work that nobody waits for."""
        return self._requests + sum(not running.asked_for for running in self._running.values())

    @property
    def _own(self) -> int:
        return sum(running.own for running in self._running.values())

    @property
    def draining(self) -> bool:
        """Whether it takes on nothing any more."""
        return self._draining.is_set()

    def start(self) -> None:
        """Begin to claim what waits."""
        self._loop = asyncio.ensure_future(self._claim_forever())

    def drain(self) -> None:
        """Take on nothing any more; what is in work goes on."""
        if not self.draining:
            self._draining_since = time.monotonic()
            self._draining.set()

    async def aclose(self, *, grace_s: float = 0.0) -> None:
        """Drain, wait for what is in work, then give back the leases of what is not done.

        Args:
            grace_s: Seconds that work gets, counted from the first `drain`.
        """
        self.drain()
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        work = [running.work for running in self._running.values()]
        if work:
            passed = time.monotonic() - self._draining_since
            _, late = await asyncio.wait(work, timeout=max(0.0, grace_s - passed))
            for one in late:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def predict(self, task_id: str) -> Task:
        """Work on this task now, or wait for whoever does; returns it once it has ended.

        If the caller is cancelled before the network has begun with the task, and nobody else here wants it, the
        lease is given back and the work dropped; the task waits for its turn like any other.

        Raises:
            NotFoundError: There is no such task.
            UnavailableError: The task has not ended, and this worker has too much to do already, or drains.
        """
        try:
            self.require_room()
        except UnavailableError:
            if (task := await self._queue.get_task(task_id)).ended:
                return task
            raise
        self._requests += 1
        try:
            return await self._predict(task_id)
        finally:
            self._requests -= 1

    def require_room(self) -> None:
        """Return if a request can be taken on now.

        Raises:
            UnavailableError: There is too much to do already, or it drains; says when to come back.
        """
        if self.draining:
            raise UnavailableError("this worker is stopping", retry_after=1.0)
        if self.load >= self._limits.admitted:
            raise UnavailableError("at capacity", retry_after=self.retry_after_s())

    def retry_after_s(self) -> float:
        """When it will have worked off its load, from the rate of the last minutes, seconds."""
        if len(self._ended_at) < 2:
            return 1.0
        rate = len(self._ended_at) / max(0.01, time.monotonic() - self._ended_at[0])
        return min(_LONGEST_RETRY_AFTER_S, max(1.0, self.load / rate))

    async def _predict(self, task_id: str) -> Task:
        pause = 0.05
        while True:
            running = self._running.get(task_id) or await self._claim_one(task_id)
            if running is not None:
                task = await self._join(running)
            else:
                task = await self._queue.get_task(task_id)
            if task is not None and task.ended:
                return task
            if self.draining:
                raise UnavailableError("this worker is stopping", retry_after=1.0)
            await asyncio.sleep(pause)
            pause = min(1.0, 2 * pause)

    async def _claim_one(self, task_id: str) -> _Running | None:
        claim = await self._queue.claim(self.name, task_id, lease_s=self._limits.lease_s)
        return None if claim is None else self._start(claim, own=False)

    def _start(self, claim: Claim, *, own: bool) -> _Running:
        task_id = claim.task.task_id

        def begin() -> None:
            running.begun = True

        running = _Running(asyncio.ensure_future(self._pipeline.run(claim, on_begin=begin)), own=own)
        self._running[task_id] = running

        def ended(work: asyncio.Task[Task]) -> None:
            if self._running.get(task_id) is running:
                del self._running[task_id]
            self._ended_at.append(time.monotonic())
            self._room.set()
            if not work.cancelled() and (err := work.exception()) is not None and not isinstance(err, LeaseLostError):
                _log.error("a prediction was left to its lease", extra={"task_id": task_id}, exc_info=err)

        running.work.add_done_callback(ended)
        return running

    async def _join(self, running: _Running) -> Task | None:
        """The task as the attempt leaves it; None if it was lost to another, or given back."""
        running.asked_for += 1
        try:
            return await asyncio.shield(running.work)
        except asyncio.CancelledError:
            if running.work.cancelled():  # the worker stops, or another request dropped it
                if self.draining:
                    raise UnavailableError("this worker is stopping", retry_after=1.0) from None
                return None
            if running.asked_for == 1 and not running.begun and not running.own:
                running.work.cancel()
            raise
        except LeaseLostError:
            return None
        finally:
            running.asked_for -= 1

    async def _claim_forever(self) -> None:
        reaped_at = 0.0
        while not self.draining:
            found = False
            try:
                if self._ready():
                    found = await self._claim_some()
                if time.monotonic() - reaped_at > _REAP_EVERY_S:
                    reaped_at = time.monotonic()
                    await self._queue.reap()
            except S3segError as err:
                _log.warning("the queue does not answer", extra={"why": str(err)})
            except Exception:
                _log.exception("the claim loop stumbled")
            await self._pause(found)

    async def _claim_some(self) -> bool:
        """Claim as much as there is room for; whether there may be more."""
        room = self._limits.claimed - self._own
        if room <= 0:
            return True
        claims = await self._queue.claim_batch(self.name, limit=room, lease_s=self._limits.lease_s)
        for claim in claims:
            self._start(claim, own=True)
        return len(claims) == room

    async def _pause(self, more: bool) -> None:
        """Until there is room again if more may wait, else until there is a sign of work."""
        if not more:
            await self._wait_for_work(self._limits.poll_s)
            return
        self._room.clear()
        if self._own >= self._limits.claimed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), self._limits.poll_s)

"""`Worker`: claims tasks from the queue and processes them, by itself and on request.

Any number of workers can share a queue; workers can be added and killed at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
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
from s3seg.tasks.visual import has_tiles

_log = logging.getLogger(__name__)
_REAP_INTERVAL_S = 15.0
_MAX_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How many tasks a worker takes, and for how long it leases them.

    Attributes:
        claimed: Tasks of the claim loop processed at a time, beside those with tiles: enough to keep the network busy,
            and no more, so that other workers get their share.
        admitted: Requests plus claimed tasks above which further requests are refused.
        lease_s: Seconds until a new lease expires.
        poll_s: Seconds between two polls of an empty queue, half more or less.
        with_tiles: Tasks with tiles processed at a time. They take long, and must fill neither the places of other
            tasks nor the memory.
    """

    claimed: int = 24
    admitted: int = 96
    lease_s: float = 60.0
    poll_s: float = 1.0
    with_tiles: int = 2


@dataclass(slots=True, eq=False)
class _Running:
    """A task that is being processed here."""

    work: asyncio.Task[Task]
    begun: bool = False
    requests: int = 0
    """The number of requests that wait for it."""
    claimed: bool = False
    """Whether the claim loop claimed it, rather than a request."""
    with_tiles: bool = False


class Worker:
    """Claims tasks and processes them. Create and use it on one event loop.

    Args:
        queue: The queue of tasks.
        pipeline: Processes a claimed task.
        ready: Returns whether the network can be used; the claim loop claims nothing before.
        limits: How many tasks to take.
        wait_for_work: Waits for a sign of new tasks, at most the given number of seconds; by default it sleeps.
        name: A unique name for this worker, stored in leases.
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
        self._chance = random.Random()  # noqa: S311 (not for security); a program's own random numbers stay as they are
        self._running: dict[str, _Running] = {}
        self._requests = 0
        self._draining = asyncio.Event()
        self._draining_since = 0.0
        self._room = asyncio.Event()
        self._ended_at: deque[float] = deque(maxlen=64)
        self._loop: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """The number of waiting requests, plus the tasks being processed that no request waits for."""
        return self._requests + sum(not running.requests for running in self._running.values())

    @property
    def _claimed(self) -> int:
        return sum(running.claimed and not running.with_tiles for running in self._running.values())

    @property
    def _takes_tiles(self) -> bool:
        """Whether there is room for another task with tiles."""
        return sum(running.with_tiles for running in self._running.values()) < self._limits.with_tiles

    def _has_room_for(self, claim: Claim) -> bool:
        return self._takes_tiles or not has_tiles(claim.task.visual)

    @property
    def draining(self) -> bool:
        """Whether it has stopped taking tasks."""
        return self._draining.is_set()

    def start(self) -> None:
        """Start the claim loop."""
        self._loop = asyncio.ensure_future(self._claim_forever())

    def drain(self) -> None:
        """Stop taking tasks; those being processed continue."""
        if not self.draining:
            self._draining_since = time.monotonic()
            self._draining.set()

    async def aclose(self, *, grace_s: float = 0.0) -> None:
        """Drain, wait for running tasks, then give back the leases of those that are not done.

        Args:
            grace_s: Seconds that running tasks get, counted from the first call of `drain`.
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
        """Process this task now, or wait for the worker that does; return it once it has ended.

        If the caller is cancelled before the network has begun with the task, and no other request here waits for it,
        the lease is given back; the task keeps its place in the queue.

        Raises:
            NotFoundError: There is no such task.
            UnavailableError: The task has not ended, and this worker is at capacity or draining.
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
        """Check that another request can be taken now.

        Raises:
            UnavailableError: The worker is at capacity or draining; ``retry_after`` says when to try again.
        """
        if self.draining:
            raise UnavailableError("this worker is stopping", retry_after=1.0)
        if self.load >= self._limits.admitted:
            raise UnavailableError("this worker is at capacity", retry_after=self.retry_after_s())

    def retry_after_s(self) -> float:
        """Estimate the seconds until the present load is done, from the rate at which recent tasks ended."""
        if len(self._ended_at) < 2:
            return 1.0
        rate = len(self._ended_at) / max(0.01, time.monotonic() - self._ended_at[0])
        return min(_MAX_RETRY_AFTER_S, max(1.0, self.load / rate))

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
        if not self._takes_tiles and has_tiles((await self._queue.get_task(task_id)).visual):
            return None  # the request waits until there is room here, or another worker has done it
        claim = await self._queue.claim(self.name, task_id, lease_s=self._limits.lease_s)
        if claim is None:
            return None
        if self._has_room_for(claim):
            return self._start(claim, claimed=False)
        await self._queue.release(claim.lease)
        return None

    def _start(self, claim: Claim, *, claimed: bool) -> _Running:
        task_id = claim.task.task_id

        def begin() -> None:
            running.begun = True

        work = asyncio.ensure_future(self._pipeline.run(claim, on_begin=begin))
        running = _Running(work, claimed=claimed, with_tiles=has_tiles(claim.task.visual))
        self._running[task_id] = running

        def ended(work: asyncio.Task[Task]) -> None:
            if self._running.get(task_id) is running:
                del self._running[task_id]
            self._ended_at.append(time.monotonic())
            self._room.set()
            if not work.cancelled() and (err := work.exception()) is not None and not isinstance(err, LeaseLostError):
                _log.error(
                    "prediction failed and could not be recorded; it is tried again when its lease expires",
                    extra=claim.task.log_fields,
                    exc_info=err,
                )

        running.work.add_done_callback(ended)
        return running

    async def _join(self, running: _Running) -> Task | None:
        """Wait for a running task; returns None if its lease was lost or given back."""
        running.requests += 1
        try:
            return await asyncio.shield(running.work)
        except asyncio.CancelledError:
            if running.work.cancelled():  # the worker is stopping, or another request dropped it
                if self.draining:
                    raise UnavailableError("this worker is stopping", retry_after=1.0) from None
                return None
            if running.requests == 1 and not running.begun and not running.claimed:
                running.work.cancel()
            raise
        except LeaseLostError:
            return None
        finally:
            running.requests -= 1

    async def _claim_forever(self) -> None:
        reaped_at = 0.0
        while not self.draining:
            more = False
            try:
                if self._ready():
                    more = await self._claim_some()
                if time.monotonic() - reaped_at > _REAP_INTERVAL_S:
                    reaped_at = time.monotonic()
                    await self._queue.reap()
            except S3segError as err:
                _log.warning("claim loop: the task queue did not respond; retrying", extra={"why": str(err)})
            except Exception:
                _log.exception("claim loop failed; retrying")
            await self._pause(more)

    async def _claim_some(self) -> bool:
        """Claim as many tasks as there is room for; returns whether more may wait."""
        room = self._limits.claimed - self._claimed
        if room <= 0:
            return True
        claims = await self._queue.claim_batch(
            self.name, limit=room, lease_s=self._limits.lease_s, with_tiles=self._takes_tiles
        )
        unwanted = []
        for claim in claims:
            if self._has_room_for(claim):
                self._start(claim, claimed=True)
            else:
                unwanted.append(claim)
        for claim in unwanted:
            await self._queue.release(claim.lease)
        return len(claims) == room

    async def _pause(self, more: bool) -> None:
        """If more tasks may wait, wait for room; else wait for a sign of new tasks."""
        if not more:
            # so that workers that were started together do not look together
            await self._wait_for_work(self._limits.poll_s * self._chance.uniform(0.5, 1.5))
            return
        self._room.clear()
        if self._claimed >= self._limits.claimed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), self._limits.poll_s)

"""One prediction, from a claimed task to its end: fetch, segment, store, finish. Knows ports only.

Whatever happens, the attempt ends in one of four ways: the task is done; it is in error, or up for another
attempt, with a code and a sentence for its owner; the lease is lost, and what was stored is deleted; or the
process is told to stop, and gives the lease back. If the process dies instead, the lease expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Protocol, cast

from s3seg.api.codes import code_of
from s3seg.errors import (
    ImageDecodeError,
    InferenceError,
    LeaseLostError,
    NotFoundError,
    PromptError,
    S3segError,
    UnavailableError,
)
from s3seg.inference.artifacts import Artifacts, make_artifacts
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.model import Claim, Failure, Lease, Task
from s3seg.tasks.ports import ObjectStore, TaskQueue

_log = logging.getLogger(__name__)
_FINISH_TRIES = 5


class Segmenting(Protocol):
    """What the pipeline needs of the network's side; `s3seg.inference.batcher.Batcher` is ours."""

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default."""
        ...

    async def segment(
        self, content: bytes, prompts: Sequence[str], *, name: str, on_begin: Callable[[], None] = ...
    ) -> list[Segmentation]:
        """See `Batcher.segment`."""
        ...


class Pipeline:
    """Works on claimed tasks, any number at once.

    Args:
        queue: Where attempts end.
        objects: Where images are and masks go.
        segmenting: What sees.
        cpu: Threads for making label maps and lists of instances.
        lease_s: What a lease is renewed to, every third of it.
        retry_after_s: How long a failed attempt waits before the next, doubling with each.
        meter: Who measures.
    """

    def __init__(
        self,
        queue: TaskQueue,
        objects: ObjectStore,
        segmenting: Segmenting,
        *,
        cpu: Executor,
        lease_s: float = 60.0,
        retry_after_s: float = 2.0,
        meter: InferenceMetrics | None = None,
    ) -> None:
        self._queue = queue
        self._objects = objects
        self._segmenting = segmenting
        self._cpu = cpu
        self._lease_s = lease_s
        self._retry_after_s = retry_after_s
        self._meter = meter or NoMetrics()

    async def run(self, claim: Claim, *, on_begin: Callable[[], None] = lambda: None) -> Task:
        """Work on a task until this attempt has ended.

        If the caller is cancelled the lease is given back, and the attempt does not count.

        Args:
            claim: The task and the lease on it.
            on_begin: Called as soon as the network begins with it.

        Returns:
            The task as the attempt left it: ``done``, ``error``, or ``processing`` where another attempt is due.

        Raises:
            LeaseLostError: The attempt is no longer current; what it stored is deleted.
            UnavailableError: The queue does not answer; the lease will expire, and the task be claimed again.
        """
        ended = "INTERNAL_ERROR"
        stages: dict[str, float] = {}
        try:
            task = await self._run(claim, on_begin, stages)
        except LeaseLostError:
            ended = "LEASE_LOST"
            raise
        except asyncio.CancelledError:
            ended = "RELEASED"
            await asyncio.shield(self._give_back(claim.lease))
            raise
        else:
            ended = task.error_code or ("DONE" if task.ended else "RETRY")
            return task
        finally:
            self._meter.ended(ended)
            fields = {
                "task_id": claim.task.task_id,
                "attempt": claim.lease.attempt,
                "ended": ended,
                "stages_ms": {name: round(seconds * 1000, 1) for name, seconds in stages.items()},
            }
            _log.info("prediction", extra=fields)

    async def _run(self, claim: Claim, on_begin: Callable[[], None], stages: dict[str, float]) -> Task:
        try:
            async with self._renewing(claim.lease):
                finished = await self._predict(claim.task, on_begin, stages)
                await self._put(finished, stages)
            return await self._finish(claim.lease, finished, stages)
        except LeaseLostError:
            raise
        except Exception as err:
            failure, final = self._judge(err, claim.task)
            delay = None if final else self._retry_after_s * 2 ** max(0, claim.task.attempts.counted - 1)
            return await self._queue.fail(claim.lease, failure, retry_after_s=delay)

    async def _predict(self, task: Task, on_begin: Callable[[], None], stages: dict[str, float]) -> Artifacts:
        with self._timed("fetch", stages):
            content = await self._fetch(task)
        with self._timed("segment", stages):
            results = await self._segmenting.segment(content, task.prompts, name="the image", on_begin=on_begin)
        with self._timed("outcome", stages):
            return await asyncio.get_running_loop().run_in_executor(
                self._cpu,
                lambda: make_artifacts(task, results, threshold=self._segmenting.threshold, url=self._objects.url),
            )

    async def _fetch(self, task: Task) -> bytes:
        key = self._objects.key_of(task.source_image_url)
        if key is None or not key.startswith(f"users/{task.user_id}/"):
            raise NotFoundError("the image is not one of this service's own; upload it first")
        try:
            return await self._objects.get(key)
        except NotFoundError:
            raise NotFoundError("the image is not there any more; upload it again") from None

    async def _put(self, finished: Artifacts, stages: dict[str, float]) -> None:
        try:
            with self._timed("store", stages):
                await _all_or_first_error([self._objects.put(key, body) for key, body in finished.objects.items()])
        except BaseException:
            await asyncio.shield(self._discard(finished))
            raise

    async def _finish(self, lease: Lease, finished: Artifacts, stages: dict[str, float]) -> Task:
        """Tell the row; what it does not take is deleted.

        A finish that has begun is brought to its end even if the caller is cancelled: nobody else could know
        whether it happened, and so whether its objects are needed.
        """
        finishing = asyncio.ensure_future(self._tell(lease, finished))
        try:
            with self._timed("finish", stages):
                return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            await asyncio.gather(finishing, return_exceptions=True)
            raise

    async def _tell(self, lease: Lease, finished: Artifacts) -> Task:
        for attempt in range(1, _FINISH_TRIES + 1):
            try:
                return await self._queue.finish(lease, finished.outcome)
            except UnavailableError:
                if attempt == _FINISH_TRIES:
                    raise  # it may have happened all the same, so the objects stay; unneeded ones are garbage
                await asyncio.sleep(0.05 * 2**attempt)
            except LeaseLostError:
                # either another attempt is current, or ours went through and only its answer was lost
                if (task := await self._find(lease.task_id)) and set(task.object_keys) == set(finished.objects):
                    return task
                await self._discard(finished)
                raise
        raise AssertionError("unreachable")

    async def _find(self, task_id: str) -> Task | None:
        try:
            return await self._queue.get_task(task_id)
        except NotFoundError:
            return None

    async def _discard(self, finished: Artifacts) -> None:
        for key in finished.objects:
            with contextlib.suppress(S3segError):  # what stays is collected as garbage
                await self._objects.delete(key)

    async def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(S3segError):  # it expires by itself
            await self._queue.release(lease)

    def _judge(self, err: Exception, task: Task) -> tuple[Failure, bool]:
        """Say why an attempt failed, in words for the task's owner, and whether another would fail too."""
        if isinstance(err, ImageDecodeError | PromptError | NotFoundError):
            return Failure(code=code_of(err), message=str(err)), True
        expected = isinstance(err, UnavailableError | InferenceError)
        _log.log(
            logging.WARNING if expected else logging.ERROR,
            "an attempt failed",
            extra={"task_id": task.task_id},
            exc_info=err,
        )
        message = {
            "UNAVAILABLE": "storage did not answer",
            "INFERENCE_FAILED": "the model could not process the image",
        }.get(code_of(err), "an error of the server")
        return Failure(code=code_of(err), message=message), False

    @contextlib.asynccontextmanager
    async def _renewing(self, lease: Lease) -> AsyncIterator[None]:
        """Keep the lease alive; if it is lost, stop what is going on inside and raise `LeaseLostError`."""
        inside = cast("asyncio.Task[object]", asyncio.current_task())
        lost: list[LeaseLostError] = []

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._lease_s / 3)
                try:
                    await self._queue.renew(lease, lease_s=self._lease_s)
                except LeaseLostError as err:
                    lost.append(err)
                    inside.cancel()
                    return
                except UnavailableError:
                    continue

        renewal = asyncio.ensure_future(renew())
        try:
            yield
        except asyncio.CancelledError:
            if lost and inside.uncancel() == 0:
                raise lost[0] from None
            raise
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    @contextlib.contextmanager
    def _timed(self, stage: str, stages: dict[str, float]) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            stages[stage] = time.perf_counter() - start
            self._meter.stage(stage, stages[stage])


async def _all_or_first_error(coroutines: Sequence[object]) -> None:
    tasks = [asyncio.ensure_future(one) for one in coroutines]  # type: ignore[arg-type]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # none may still write once the caller begins to tidy up
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Process a claimed task: fetch the picture, segment it, store the artifacts, finish the task.

An attempt ends in one of four ways: the task is done; the task failed, or will be tried again, with an error code and a
message for its owner; the lease was lost, and the stored objects are deleted; or the process is stopping, and the lease
is given back. If the process dies, the lease expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, cast

from s3seg.api.codes import code_of
from s3seg.errors import (
    InferenceError,
    InvalidRequestError,
    LeaseLostError,
    NotFoundError,
    S3segError,
    UnavailableError,
)
from s3seg.inference.artifacts import Artifacts, make_artifacts
from s3seg.inference.batcher import Batcher, ShownConcept
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.tasks.concepts import ConceptDefinition
from s3seg.tasks.model import Claim, Failure, Lease, Task
from s3seg.tasks.object_keys import owner_of, public_url, split_image_url
from s3seg.tasks.ports import ObjectStore, TaskQueue
from s3seg.tasks.visual import clicks_of, concept_of, tile_of

_log = logging.getLogger(__name__)
_FINISH_ATTEMPTS = 5


class Pipeline:
    """Processes claimed tasks, any number concurrently.

    Args:
        queue: The queue that the tasks were claimed from.
        objects: The store of pictures and artifacts.
        batcher: Returns the batcher; called for each task, so the network may still be loading when a pipeline is made.
        cpu: Threads for making artifacts.
        lease_s: Seconds that a lease is renewed to; it is renewed every third of that time.
        retry_after_s: Seconds before a failed attempt is tried again; doubles with each attempt.
        metrics: Receives measurements.
    """

    def __init__(
        self,
        queue: TaskQueue,
        objects: ObjectStore,
        batcher: Callable[[], Batcher],
        *,
        cpu: Executor,
        lease_s: float = 60.0,
        retry_after_s: float = 2.0,
        metrics: InferenceMetrics | None = None,
    ) -> None:
        self._queue = queue
        self._objects = objects
        self._batcher = batcher
        self._cpu = cpu
        self._lease_s = lease_s
        self._retry_after_s = retry_after_s
        self._metrics = metrics or NoMetrics()

    async def run(self, claim: Claim, *, on_begin: Callable[[], None] = lambda: None) -> Task:
        """Process a task until this attempt has ended.

        If the caller is cancelled, the lease is given back and the attempt does not count.

        Args:
            claim: The task and its lease.
            on_begin: Called when the network begins with the task.

        Returns:
            The task as the attempt left it: ``done``, ``error``, or ``processing`` if it will be tried again.

        Raises:
            LeaseLostError: The lease was lost; the objects that this attempt stored are deleted.
            UnavailableError: The queue cannot be reached; once the lease has expired, the task is claimed again.
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
            self._metrics.ended(ended)
            fields = {
                **claim.task.log_fields,
                "user_id": claim.task.user_id,
                "attempt": claim.lease.attempt,
                "ended": ended,
                "stages_ms": {name: round(seconds * 1000, 1) for name, seconds in stages.items()},
            }
            _log.log(_level(ended), "prediction", extra=fields)

    async def _run(self, claim: Claim, on_begin: Callable[[], None], stages: dict[str, float]) -> Task:
        try:
            async with self._renewing(claim.lease):
                artifacts = await self._predict(claim.task, on_begin, stages)
                await self._store(artifacts, stages)
            return await self._finish(claim.lease, artifacts, stages)
        except LeaseLostError:
            raise
        except Exception as err:
            failure, final = self._classify(err, claim.task)
            delay = None if final else self._retry_after_s * 2 ** max(0, claim.task.attempts.counted - 1)
            return await self._queue.fail(claim.lease, failure, retry_after_s=delay)

    async def _predict(self, task: Task, on_begin: Callable[[], None], stages: dict[str, float]) -> Artifacts:
        # by key, and results beside the image: this worker's public base URL may not be that of the edge
        found = split_image_url(task.source_image_url)
        if found is None or owner_of(found[1]) != task.user_id:
            raise NotFoundError("the image is not stored in this service; upload it first")
        public_base, key = found
        objects = clicks_of(task.visual)
        if objects and len(objects) != len(task.prompts):
            raise InvalidRequestError("the clicks of the task are malformed")
        definition = concept_of(task.visual)
        tile = tile_of(task.visual)
        if definition is not None:
            definition.require_owner(task.user_id)
        with self._timed("fetch", stages):
            content = await self._fetch(key)
            concept = None if definition is None else await self._fetch_examples(definition)
        with self._timed("segment", stages):
            batcher = self._batcher()
            results = await batcher.segment(
                content,
                task.prompts,
                objects=objects,
                concept=concept,
                tile=tile,
                name="the image",
                user_id=task.user_id,
                on_begin=on_begin,
            )
        threshold = 0.0 if objects else batcher.threshold  # what was clicked is found, however low its score
        with self._timed("outcome", stages):
            return await asyncio.get_running_loop().run_in_executor(
                self._cpu,
                lambda: make_artifacts(
                    task,
                    results,
                    threshold=threshold,
                    prompt_kinds=batcher.prompt_kinds,
                    url=lambda key: public_url(public_base, key),
                ),
            )

    async def _fetch_examples(self, definition: ConceptDefinition) -> ShownConcept:
        examples = []
        for example in definition.examples:
            found = split_image_url(example.image_url)
            try:
                content = None if found is None else await self._objects.get(found[1])
            except NotFoundError:
                content = None
            if content is None:
                raise NotFoundError("the image of an example no longer exists; make the concept again")
            examples.append((content, example.boxes, example.negative_boxes))
        return ShownConcept(definition.words, examples)

    async def _fetch(self, key: str) -> bytes:
        try:
            return await self._objects.get(key)
        except NotFoundError:
            raise NotFoundError("the image no longer exists; upload it again") from None

    async def _store(self, artifacts: Artifacts, stages: dict[str, float]) -> None:
        try:
            with self._timed("store", stages):
                await _all_or_first_error([self._objects.put(key, body) for key, body in artifacts.objects.items()])
        except BaseException:
            await asyncio.shield(self._discard(artifacts))
            raise

    async def _finish(self, lease: Lease, artifacts: Artifacts, stages: dict[str, float]) -> Task:
        """Mark the task as done. If the queue refuses, delete the objects.

        Once begun, this is completed even if the caller is cancelled: only this attempt can find out whether the task
        was marked, and so whether the objects are needed.
        """
        finishing = asyncio.ensure_future(self._mark_done(lease, artifacts))
        try:
            with self._timed("finish", stages):
                return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            await asyncio.gather(finishing, return_exceptions=True)
            raise

    async def _mark_done(self, lease: Lease, artifacts: Artifacts) -> Task:
        for attempt in range(1, _FINISH_ATTEMPTS + 1):
            try:
                return await self._queue.finish(lease, artifacts.outcome)
            except UnavailableError:
                if attempt == _FINISH_ATTEMPTS:
                    raise  # the task may be done all the same: keep the objects; `s3seg admin gc` deletes unneeded ones
                await asyncio.sleep(0.05 * 2**attempt)
            except LeaseLostError:
                # either another attempt has the lease, or an earlier request succeeded and its response was lost
                if (task := await self._get_task(lease.task_id)) and set(task.object_keys) == set(artifacts.objects):
                    return task
                await self._discard(artifacts)
                raise
        raise AssertionError("unreachable")

    async def _get_task(self, task_id: str) -> Task | None:
        try:
            return await self._queue.get_task(task_id)
        except NotFoundError:
            return None

    async def _discard(self, artifacts: Artifacts) -> None:
        for key in artifacts.objects:
            with contextlib.suppress(S3segError):  # `s3seg admin gc` deletes what remains
                await self._objects.delete(key)

    async def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(S3segError):  # otherwise the lease expires
            await self._queue.release(lease)

    def _classify(self, err: Exception, task: Task) -> tuple[Failure, bool]:
        """Return the failure to show to the owner of the task, and whether it is final: another attempt would fail too.

        Messages of unexpected errors go to the log only; they may contain secrets.
        """
        if isinstance(err, InvalidRequestError | NotFoundError):
            return Failure(code=code_of(err), message=str(err)), True
        expected = isinstance(err, UnavailableError | InferenceError)
        _log.log(
            logging.WARNING if expected else logging.ERROR,
            "prediction attempt failed; the task is tried again unless this was its last attempt",
            extra=task.log_fields,
            exc_info=err,
        )
        message = {
            "UNAVAILABLE": "the storage, the database or a decoding process did not respond",
            "INFERENCE_FAILED": "the model could not process the image",
        }.get(code_of(err), "internal server error")
        return Failure(code=code_of(err), message=message), False

    @contextlib.asynccontextmanager
    async def _renewing(self, lease: Lease) -> AsyncIterator[None]:
        """Renew the lease while the body runs; if it is lost, cancel the body and raise `LeaseLostError`."""
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
                except Exception:
                    _log.exception("renewing a lease failed; it is tried again", extra={"task_id": lease.task_id})

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
            self._metrics.stage(stage, stages[stage])


async def _all_or_first_error(coroutines: Sequence[Coroutine[Any, Any, object]]) -> None:
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # none may still be writing when the caller starts to delete
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _level(ended: str) -> int:
    """The log level of an attempt that ended in one of these ways."""
    if ended == "INTERNAL_ERROR":
        return logging.ERROR
    return logging.INFO if ended in ("DONE", "RELEASED", "CANCELLED") else logging.WARNING

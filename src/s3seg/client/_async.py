"""The asynchronous client; it has the same methods as `Client`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import httpx

from s3seg.api.additions import (
    ConceptResponse,
    DeletedAccountResponse,
    MeResponse,
    ProjectResponse,
    ProjectsListResponse,
)
from s3seg.api.edge import (
    ResultDetailResponse,
    ResultsListResponse,
    ResultSummary,
    SegmentResponse,
    TaskResponse,
    UploadResponse,
)
from s3seg.client._core import DEFAULT_CONCURRENCY, Core
from s3seg.client._steps import Call, Request, RetryPolicy, SleepUnless, Step, Steps, StoppedError
from s3seg.client.arguments import check_prompts, check_sources
from s3seg.errors import ConfigurationError, InferenceError, S3segError
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.concepts import Box
from s3seg.tasks.private_files import open_private
from s3seg.tasks.tiles import Tile

if TYPE_CHECKING:
    from s3seg.images import ImageSource
    from s3seg.results.segmentation import Segmentation

_S = TypeVar("_S")
_T = TypeVar("_T")
_TIDY_UP_S = 5.0
"""The most that cancelling a task of a call may take that is itself cancelled."""


class AsyncClient:
    """A client of the edge service for asyncio, with the same methods as `Client`.

        async with AsyncClient("https://s3seg.example", token="...") as client:
            result = await client.segment("park.png", "tree")

    It may be used in several event loops, such as those of several calls of `asyncio.run`: it opens connections of its
    own in each. An ``http`` that you pass belongs to the event loop in which it is first used.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        retry_policy: RetryPolicy | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Create a client; nothing is sent yet. The arguments are those of `Client`, with an asynchronous ``http``."""
        self._set_up(Core.configured(url, token, retry_policy), timeout, http)

    @classmethod
    def signed_in(
        cls,
        url: str | None = None,
        *,
        realtime: bool | None = None,
        timeout: float = 60.0,
        retry_policy: RetryPolicy | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> AsyncClient:
        """Create a client for the user who signed in with ``s3seg login``; see `Client.signed_in`."""
        client = cls.__new__(cls)
        client._set_up(Core.signed_in(url, retry_policy, realtime), timeout, http)
        return client

    def _set_up(self, core: Core, timeout: float, http: httpx.AsyncClient | None) -> None:
        self._core = core.suited_to(timeout if http is None else http.timeout.read)
        self._timeout = timeout
        self._given_http = http
        self._loop_of_given: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._own_http: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        self._closed = False

    def __repr__(self) -> str:
        return f"AsyncClient({self._core.url!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those of other event loops ended with them."""
        self._closed = True
        if self._core.changes is not None:
            await asyncio.to_thread(self._core.changes.close)
        own = self._own_http.pop(asyncio.get_running_loop(), None)
        if own is not None:
            await own.aclose()

    @overload
    async def segment(
        self,
        image: ImageSource,
        prompt: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation: ...
    @overload
    async def segment(
        self,
        image: ImageSource,
        prompt: Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> list[Segmentation]: ...
    async def segment(
        self,
        image: ImageSource,
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation | list[Segmentation]:
        """Segment an image on the service; see `Client.segment` for the arguments and errors."""
        return await self._run(
            self._core.segment(
                image,
                prompt,
                threshold=threshold,
                max_instances=max_instances,
                tile=tile,
                project_id=project_id,
                timeout=timeout,
            )
        )

    async def segment_many(
        self,
        sources: Iterable[_S],
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        batch_size: int | None = None,
        on_error: Callable[[_S, S3segError], None] | None = None,
    ) -> AsyncGenerator[tuple[_S, Any], None]:
        """Segment many images on the service, several at a time, and yield the results in order."""
        prompts = prompt if isinstance(prompt, str) else check_prompts(prompt)  # an iterator is read only once
        remaining = iter(check_sources(sources))
        pending: deque[tuple[_S, asyncio.Task[Any]]] = deque()

        def start(count: int) -> None:
            for source in itertools.islice(remaining, count):
                one = self.segment(source, prompts, threshold=threshold, max_instances=max_instances, tile=tile)
                pending.append((source, asyncio.create_task(one)))

        try:
            start(batch_size or DEFAULT_CONCURRENCY)
            while pending:
                source, task = pending.popleft()
                start(1)
                try:
                    result = await task
                except (S3segError, TimeoutError) as err:
                    if on_error is None:
                        raise
                    on_error(source, err if isinstance(err, S3segError) else InferenceError(str(err)))
                else:
                    yield source, result
        finally:
            for _, task in pending:
                task.cancel()
            await asyncio.gather(*(task for _, task in pending), return_exceptions=True)

    async def click(
        self,
        image: ImageSource,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] | None = None,
        *,
        box: Sequence[float] | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation:
        """Segment the one object that points, a box, or both show, and return the same as `Segmenter.click`.

        The service's checkpoint must have a click head. An object costs one credit.

        Args:
            image: An image, as for `segment`.
            points: (x, y) in pixels of the image, up to 64.
            labels: For each point 1 if it is on the object, 0 if it is on what does not belong to it; None if all are
                on it.
            box: (x1, y1, x2, y2) around the object.
            project_id: Add the image and the result to this project.
            timeout: Seconds to wait for the result; after that the task is cancelled and refunded.

        Raises:
            InvalidRequestError: A point or the box is malformed.
            InferenceError: The task failed, for example because a point is outside the image or the checkpoint has no
                click head; its credit was refunded.
            TimeoutError: The result was not available within ``timeout`` seconds.
        """
        objects = [Clicks(points, labels, box)]
        return (await self.click_many(image, objects, project_id=project_id, timeout=timeout))[0]

    async def click_many(
        self,
        image: ImageSource,
        objects: Sequence[Clicks],
        *,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> list[Segmentation]:
        """Segment up to 16 objects of one image in one task, and return the same as `Segmenter.click_many`.

        Args:
            image: An image, as for `segment`.
            objects: What shows each object; duplicates count once.
            project_id: Add the image and the result to this project.
            timeout: Seconds to wait for the result; after that the task is cancelled and refunded.

        Raises:
            S3segError: The same errors as `click`.
        """
        return await self._run(self._core.click(image, objects, project_id=project_id, timeout=timeout))

    async def create_concept(
        self,
        name: str,
        examples: Sequence[tuple[ImageSource, Sequence[Box], Sequence[Box]]],
        *,
        words: str | None = None,
    ) -> ConceptResponse:
        """Upload images, and keep what boxes show on them as a concept, which costs nothing.

        Args:
            name: What results call it.
            examples: For each image, of up to 4, the image, boxes around examples of what to find, and boxes around
                what not to find; xyxy in pixels, up to 16 of each kind.
            words: Words that are searched too; None searches by the examples alone.

        Raises:
            ImageDecodeError: An image cannot be read.
            InvalidRequestError: A box or the name is malformed, or there are too many concepts.
        """
        return await self._run(self._core.create_concept(name, examples, words=words))

    async def concepts(self) -> list[ConceptResponse]:
        """Return all concepts, newest first."""
        return await self._run(self._core.concepts())

    async def delete_concept(self, concept_id: str) -> None:
        """Delete a concept; its images are kept."""
        await self._run(self._core.delete_concept(concept_id))

    async def segment_concept(
        self,
        image: ImageSource,
        concept_id: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation:
        """Segment every instance of a concept that the service keeps, for one credit.

        Args:
            image: An image, as for `segment`.
            concept_id: The ``id`` of what `create_concept` returned.
            threshold: As for `segment`.
            max_instances: As for `segment`.
            project_id: Add the image and the result to this project.
            timeout: Seconds to wait for the result; after that the task is cancelled and refunded.

        Raises:
            InvalidRequestError: There is no such concept.
            InferenceError: The task failed, for example because an image of the examples was deleted; its credit was
                refunded.
            TimeoutError: The result was not available within ``timeout`` seconds.
        """
        return await self._run(
            self._core.segment_concept(
                image,
                concept_id,
                threshold=threshold,
                max_instances=max_instances,
                project_id=project_id,
                timeout=timeout,
            )
        )

    async def upload(
        self, image: ImageSource, *, project_id: str | None = None, expires_in_s: int | None = None
    ) -> UploadResponse:
        """Upload an image; pass the ``image_url`` of the response to `submit`."""
        return await self._run(self._core.upload(image, project_id=project_id, expires_in_s=expires_in_s))

    async def submit(
        self,
        image_url: str,
        prompt: str | Sequence[str],
        *,
        project_id: str | None = None,
        idempotency_key: str | None = None,
        expires_in_s: int | None = None,
        tile: Tile | None = None,
    ) -> SegmentResponse:
        """Create a task without waiting for its result; see `Client.submit` for the arguments."""
        return await self._run(
            self._core.submit(
                image_url,
                prompt,
                project_id=project_id,
                idempotency_key=idempotency_key,
                expires_in_s=expires_in_s,
                tile=tile,
            )
        )

    async def task(self, task_id: str) -> TaskResponse:
        """Return the current state of a task."""
        return await self._run(self._core.task(task_id))

    async def wait(self, task_id: str, *, timeout: float = 600.0) -> TaskResponse:
        """Wait until a task has ended, and return it; raise TimeoutError after ``timeout`` seconds."""
        return await self._run(self._core.wait(task_id, timeout=timeout))

    async def cancel(self, task_id: str) -> TaskResponse:
        """Cancel and refund a task; a task that has ended is returned unchanged."""
        return await self._run(self._core.cancel(task_id))

    async def results(
        self, *, project_id: str | None = None, page: int = 1, limit: int = 20, cursor: str | None = None
    ) -> ResultsListResponse:
        """Return one page of results, newest first; see `iter_results` for all results."""
        return await self._run(self._core.results(project_id=project_id, page=page, limit=limit, cursor=cursor))

    async def iter_results(self, *, project_id: str | None = None) -> AsyncIterator[ResultSummary]:
        """Iterate over all results, newest first, fetching them page by page."""
        cursor: str | None = None
        while True:
            page = await self.results(project_id=project_id, limit=100, cursor=cursor)
            for result in page.results:
                yield result
            cursor = page.next_cursor
            if cursor is None:
                return

    async def result(self, result_id: str) -> ResultDetailResponse:
        """Return a result with all details, but without its masks."""
        return await self._run(self._core.result(result_id))

    async def segmentations(
        self, result_id: str, *, threshold: float | None = None, max_instances: int | None = None
    ) -> list[Segmentation]:
        """Fetch the masks of a finished result: one `Segmentation` per prompt, at any threshold from 0.1."""
        return await self._run(self._core.segmentations(result_id, threshold=threshold, max_instances=max_instances))

    async def delete_result(self, result_id: str) -> None:
        """Delete a result and its masks; a task that has not ended is cancelled first."""
        await self._run(self._core.delete_result(result_id))

    async def delete_image(self, image_id: str) -> None:
        """Delete an image and cancel its tasks that have not ended; existing results are kept."""
        await self._run(self._core.delete_image(image_id))

    async def me(self) -> MeResponse:
        """Return your tier, credits and rate limits."""
        return await self._run(self._core.me())

    async def export_account(self, path: str | os.PathLike[str]) -> Path:
        """Save all that you have on the service as a tar archive, and return its path.

        What has arrived is kept in ``{path}.partial``: if the connection is lost, the rest is fetched, now or when this
        is called again with the same path. Images and masks are not kept in memory.

        Raises:
            InvalidRequestError: The file exists already.
            UnavailableError: The service cannot be reached for a while.
        """
        return await self._run(self._core.export_account(path))

    async def delete_account(self, confirm: str) -> DeletedAccountResponse:
        """Delete your account and all that it has, for ever; the response says what is kept. Safe to repeat.

        Args:
            confirm: Your ``user_id``, as in `me`.
        """
        return await self._run(self._core.delete_account(confirm))

    async def projects(self, *, page: int = 1, limit: int = 20) -> ProjectsListResponse:
        """Return one page of projects, newest first."""
        return await self._run(self._core.projects(page=page, limit=limit))

    async def create_project(self, name: str) -> ProjectResponse:
        """Create a project."""
        return await self._run(self._core.create_project(name))

    async def rename_project(self, project_id: str, name: str) -> ProjectResponse:
        """Rename a project."""
        return await self._run(self._core.rename_project(project_id, name))

    async def delete_project(self, project_id: str) -> None:
        """Delete a project; its images and results are kept."""
        await self._run(self._core.delete_project(project_id))

    async def _run(self, steps: Steps[_T]) -> _T:
        result: Any = None
        error: httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(result) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            result = error = None
            try:
                result = await self._execute(step)
            except httpx.TransportError as err:
                error = err
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError, StoppedError, S3segError, httpx.HTTPError):
                    await asyncio.wait_for(self._tidy_up(steps), _TIDY_UP_S)
                raise

    async def _tidy_up(self, steps: Steps[Any]) -> None:
        """Let a call that is cancelled take its last steps: it cancels its task, whose result nobody waits for."""
        with contextlib.suppress(StopIteration):
            step = steps.throw(StoppedError)
            while True:
                step = steps.send(await self._execute(step))

    async def _execute(self, step: Step) -> Any:
        if isinstance(step, Request):
            return await self._send(step)
        if isinstance(step, Call):
            return await asyncio.to_thread(step.call)
        if isinstance(step, SleepUnless):
            return await self._sleep_unless(step)
        await asyncio.sleep(step.seconds)
        return None

    async def _sleep_unless(self, step: SleepUnless) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
                loop.call_soon_threadsafe(done.set)

        step.done.add_done_callback(wake)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), step.seconds)

    async def _send(self, request: Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        if self._given_http is None:
            return await _sent(self._http_of(loop), request)
        if self._loop_of_given is None:
            self._loop_of_given = weakref.ref(loop)
        try:
            return await _sent(self._given_http, request)
        except RuntimeError as err:
            if self._loop_of_given() is loop:
                raise
            raise ConfigurationError(
                "the httpx client of this AsyncClient was first used in another event loop, whose connections do not "
                "work here; create it in this event loop, or do not pass http="
            ) from err

    def _http_of(self, loop: asyncio.AbstractEventLoop) -> httpx.AsyncClient:
        if self._closed:
            raise RuntimeError("this AsyncClient is closed; create another one")
        if loop not in self._own_http:
            self._own_http[loop] = httpx.AsyncClient(timeout=self._timeout)
        return self._own_http[loop]


async def _sent(http: httpx.AsyncClient, request: Request) -> httpx.Response:
    path = request.save_to
    if path is None:
        return await http.request(request.method, request.url, **request.options)
    async with http.stream(request.method, request.url, **request.options) as response:
        if response.is_success:
            file = await asyncio.to_thread(open, path, "ab", opener=open_private)
            try:
                async for chunk in response.aiter_bytes():
                    await asyncio.to_thread(file.write, chunk)
            finally:
                await asyncio.to_thread(file.close)
        else:
            await response.aread()
    return response

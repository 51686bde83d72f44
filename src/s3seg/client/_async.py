"""The client for asyncio programs; its methods are those of `Client`, awaited."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

import httpx

from s3seg.api.additions import MeResponse, ProjectResponse, ProjectsListResponse
from s3seg.api.edge import (
    ResultDetailResponse,
    ResultsListResponse,
    ResultSummary,
    SegmentResponse,
    TaskResponse,
    UploadResponse,
)
from s3seg.client._core import PICTURES_AT_ONCE, Core
from s3seg.client._steps import Pause, RetryPolicy, Send, Steps, Work
from s3seg.errors import InferenceError, S3segError
from s3seg.images import ImageSource
from s3seg.results.segmentation import Segmentation

_S = TypeVar("_S")
_T = TypeVar("_T")


class AsyncClient:
    """`Client` for asyncio: the same calls with the same results, awaited.

    async with AsyncClient("https://s3seg.example", token="...") as client:
        result = await client.segment("park.png", "tree")
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        patience: RetryPolicy | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """See `Client`."""
        self._core = Core.configured(url, token, patience)
        self._http = http or httpx.AsyncClient(timeout=timeout)
        self._owns_http = http is None

    def __repr__(self) -> str:
        return f"AsyncClient({self._core.url!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of connections."""
        if self._owns_http:
            await self._http.aclose()

    @overload
    async def segment(
        self,
        image: ImageSource,
        prompt: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
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
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation | list[Segmentation]:
        """See `Client.segment`."""
        return await self._run(
            self._core.segment(
                image,
                prompt,
                threshold=threshold,
                max_instances=max_instances,
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
        batch_size: int | None = None,
        on_error: Callable[[_S, S3segError], None] | None = None,
    ) -> AsyncGenerator[tuple[_S, Any], None]:
        """See `Client.segment_many`."""
        waiting = iter(sources)
        under_way: deque[tuple[_S, asyncio.Task[Any]]] = deque()

        def begin(most: int) -> None:
            for source in itertools.islice(waiting, most):
                one = self.segment(source, prompt, threshold=threshold, max_instances=max_instances)
                under_way.append((source, asyncio.create_task(one)))

        try:
            begin(batch_size or PICTURES_AT_ONCE)
            while under_way:
                source, task = under_way.popleft()
                begin(1)
                try:
                    result = await task
                except (S3segError, TimeoutError) as err:
                    if on_error is None:
                        raise
                    on_error(source, err if isinstance(err, S3segError) else InferenceError(str(err)))
                else:
                    yield source, result
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    async def upload(self, image: ImageSource, *, project_id: str | None = None) -> UploadResponse:
        """See `Client.upload`."""
        return await self._run(self._core.upload(image, project_id=project_id))

    async def submit(
        self,
        image_url: str,
        prompt: str | Sequence[str],
        *,
        project_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> SegmentResponse:
        """See `Client.submit`."""
        return await self._run(
            self._core.submit(image_url, prompt, project_id=project_id, idempotency_key=idempotency_key)
        )

    async def task(self, task_id: str) -> TaskResponse:
        """See `Client.task`."""
        return await self._run(self._core.task(task_id))

    async def wait(self, task_id: str, *, timeout: float = 600.0) -> TaskResponse:
        """See `Client.wait`."""
        return await self._run(self._core.wait(task_id, timeout=timeout))

    async def cancel(self, task_id: str) -> TaskResponse:
        """See `Client.cancel`."""
        return await self._run(self._core.cancel(task_id))

    async def results(
        self, *, project_id: str | None = None, page: int = 1, limit: int = 20, cursor: str | None = None
    ) -> ResultsListResponse:
        """See `Client.results`."""
        return await self._run(self._core.results(project_id=project_id, page=page, limit=limit, cursor=cursor))

    async def iter_results(self, *, project_id: str | None = None) -> AsyncIterator[ResultSummary]:
        """See `Client.iter_results`."""
        cursor: str | None = None
        while True:
            page = await self.results(project_id=project_id, limit=100, cursor=cursor)
            for result in page.results:
                yield result
            cursor = page.next_cursor
            if cursor is None:
                return

    async def result(self, result_id: str) -> ResultDetailResponse:
        """See `Client.result`."""
        return await self._run(self._core.result(result_id))

    async def segmentations(
        self, result_id: str, *, threshold: float | None = None, max_instances: int | None = None
    ) -> list[Segmentation]:
        """See `Client.segmentations`."""
        return await self._run(self._core.segmentations(result_id, threshold=threshold, max_instances=max_instances))

    async def delete_result(self, result_id: str) -> None:
        """See `Client.delete_result`."""
        await self._run(self._core.delete_result(result_id))

    async def delete_image(self, image_id: str) -> None:
        """See `Client.delete_image`."""
        await self._run(self._core.delete_image(image_id))

    async def me(self) -> MeResponse:
        """See `Client.me`."""
        return await self._run(self._core.me())

    async def projects(self, *, page: int = 1, limit: int = 20) -> ProjectsListResponse:
        """See `Client.projects`."""
        return await self._run(self._core.projects(page=page, limit=limit))

    async def create_project(self, name: str) -> ProjectResponse:
        """See `Client.create_project`."""
        return await self._run(self._core.create_project(name))

    async def rename_project(self, project_id: str, name: str) -> ProjectResponse:
        """See `Client.rename_project`."""
        return await self._run(self._core.rename_project(project_id, name))

    async def delete_project(self, project_id: str) -> None:
        """See `Client.delete_project`."""
        await self._run(self._core.delete_project(project_id))

    async def _run(self, steps: Steps[_T]) -> _T:
        gave: Any = None
        failed: httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(gave) if failed is None else steps.throw(failed)
            except StopIteration as end:
                return end.value
            gave = failed = None
            try:
                gave = await self._do(step)
            except httpx.TransportError as err:
                failed = err

    async def _do(self, step: Send | Pause | Work) -> Any:
        if isinstance(step, Send):
            return await self._http.request(step.method, step.url, **step.options)
        if isinstance(step, Work):
            return await asyncio.to_thread(step.call)
        await asyncio.sleep(step.seconds)
        return None

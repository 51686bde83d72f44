"""The client for ordinary programs."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


class Client:
    """A client of the edge service. Safe to share between threads.

        with Client("https://s3seg.example", token="...") as client:
            result = client.segment("park.png", "tree")

    Every call may raise what the service answers with, as the error of `s3seg.errors` that has its code;
    `UnavailableError` where it was not reached. Refusals are waited for as long as ``Retry-After`` says, and lost
    requests repeated where that does no harm, before anything is raised.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        patience: RetryPolicy | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """Name the service; nothing is sent yet.

        Args:
            url: Its address; by default ``S3SEG_URL``.
            token: An access token; by default ``S3SEG_TOKEN``.
            timeout: Seconds to wait for the connection, and between two pieces of an answer.
            patience: How often and how long to try again.
            http: An httpx client to use instead of an own one; it stays open.

        Raises:
            ConfigurationError: There is no address or no token.
        """
        self._core = Core.configured(url, token, patience)
        self._http = http or httpx.Client(timeout=timeout)
        self._owns_http = http is None

    def __repr__(self) -> str:
        return f"Client({self._core.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections."""
        if self._owns_http:
            self._http.close()

    @overload
    def segment(  # pyright: ignore[reportOverlappingOverload] (a str is a sequence of str)
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
    def segment(
        self,
        image: ImageSource,
        prompt: Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> list[Segmentation]: ...
    def segment(
        self,
        image: ImageSource,
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation | list[Segmentation]:
        """Upload a picture, have it segmented, and fetch what was found: as `Segmenter.segment`, elsewhere.

        Costs a credit a prompt. PNG, JPEG and WebP files are sent as they are, everything else as PNG.

        Args:
            image: A picture (path, URL, bytes, PIL, numpy, torch).
            prompt: What to look for, or up to 16 such.
            threshold: Keep instances that score above this, 0.1..1; by default what the checkpoint recommends.
            max_instances: Keep at most so many, the best; None keeps all.
            project_id: File image and result under this project.
            timeout: Seconds to wait for the result; after that the task is cancelled, and refunded.

        Returns:
            One result for one prompt; for a sequence of prompts a list, in their order.

        Raises:
            ImageDecodeError: The picture cannot be read.
            FileTooLargeError: It is more than 10 MB.
            PromptError: A prompt is empty, too long or not text.
            InsufficientCreditsError: The account holds too little.
            InferenceError: The service could not do it; the credits were given back.
            TimeoutError: It took longer than ``timeout``.
        """
        return self._run(
            self._core.segment(
                image,
                prompt,
                threshold=threshold,
                max_instances=max_instances,
                project_id=project_id,
                timeout=timeout,
            )
        )

    def segment_many(
        self,
        sources: Iterable[_S],
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        batch_size: int | None = None,
        on_error: Callable[[_S, S3segError], None] | None = None,
    ) -> Iterator[tuple[_S, Any]]:
        """Segment many pictures, in order, several at a time: as `Segmenter.segment_many`, elsewhere.

        Args:
            sources: Pictures, as `segment` takes them; read as they are needed.
            prompt: What to look for in each, or several such.
            threshold: As for `segment`.
            max_instances: As for `segment`.
            batch_size: Pictures under way at a time; by default 4.
            on_error: Called with a picture that could not be done, and why; the rest goes on. By default the first
                error is raised.

        Yields:
            A picture's source, and its result (a list of results, where several prompts were given).
        """
        at_once = batch_size or PICTURES_AT_ONCE

        def one(source: _S) -> Any:
            return self.segment(source, prompt, threshold=threshold, max_instances=max_instances)

        waiting = iter(sources)
        under_way: deque[tuple[_S, Future[Any]]] = deque()
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="s3seg-client")

        def begin(most: int) -> None:
            under_way.extend((source, pool.submit(one, source)) for source in itertools.islice(waiting, most))

        try:
            begin(at_once)
            while under_way:
                source, future = under_way.popleft()
                begin(1)
                try:
                    result = future.result()
                except (S3segError, TimeoutError) as err:
                    if on_error is None:
                        raise
                    on_error(source, err if isinstance(err, S3segError) else InferenceError(str(err)))
                else:
                    yield source, result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def upload(self, image: ImageSource, *, project_id: str | None = None) -> UploadResponse:
        """Store a picture; its ``image_url`` is what `submit` takes."""
        return self._run(self._core.upload(image, project_id=project_id))

    def submit(
        self,
        image_url: str,
        prompt: str | Sequence[str],
        *,
        project_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> SegmentResponse:
        """Ask for masks without waiting for them.

        Args:
            image_url: Of one of your uploads.
            prompt: What to look for, or up to 16 such; a credit each.
            project_id: File the result under this project.
            idempotency_key: A further call with the same key gives the same task; by default a fresh one.
        """
        return self._run(self._core.submit(image_url, prompt, project_id=project_id, idempotency_key=idempotency_key))

    def task(self, task_id: str) -> TaskResponse:
        """How a task stands."""
        return self._run(self._core.task(task_id))

    def wait(self, task_id: str, *, timeout: float = 600.0) -> TaskResponse:
        """A task once it is done or in error.

        Raises:
            TimeoutError: It took longer than ``timeout`` seconds; the task goes on.
        """
        return self._run(self._core.wait(task_id, timeout=timeout))

    def cancel(self, task_id: str) -> TaskResponse:
        """End a task that has not ended, and get its credits back."""
        return self._run(self._core.cancel(task_id))

    def results(
        self, *, project_id: str | None = None, page: int = 1, limit: int = 20, cursor: str | None = None
    ) -> ResultsListResponse:
        """A page of results, newest first; see `iter_results` for all."""
        return self._run(self._core.results(project_id=project_id, page=page, limit=limit, cursor=cursor))

    def iter_results(self, *, project_id: str | None = None) -> Iterator[ResultSummary]:
        """All results, newest first, fetched page by page."""
        cursor: str | None = None
        while True:
            page = self.results(project_id=project_id, limit=100, cursor=cursor)
            yield from page.results
            cursor = page.next_cursor
            if cursor is None:
                return

    def result(self, result_id: str) -> ResultDetailResponse:
        """One result in full, without its masks."""
        return self._run(self._core.result(result_id))

    def segmentations(
        self, result_id: str, *, threshold: float | None = None, max_instances: int | None = None
    ) -> list[Segmentation]:
        """The masks of a result that is done, one `Segmentation` for each prompt, at any threshold from 0.1."""
        return self._run(self._core.segmentations(result_id, threshold=threshold, max_instances=max_instances))

    def delete_result(self, result_id: str) -> None:
        """Forget a result and its masks; a live task is cancelled first."""
        self._run(self._core.delete_result(result_id))

    def delete_image(self, image_id: str) -> None:
        """Forget an image; live tasks on it are cancelled, results that exist stay."""
        self._run(self._core.delete_image(image_id))

    def me(self) -> MeResponse:
        """Tier, credits and limits."""
        return self._run(self._core.me())

    def projects(self, *, page: int = 1, limit: int = 20) -> ProjectsListResponse:
        """A page of projects, newest first."""
        return self._run(self._core.projects(page=page, limit=limit))

    def create_project(self, name: str) -> ProjectResponse:
        """Make a project."""
        return self._run(self._core.create_project(name))

    def rename_project(self, project_id: str, name: str) -> ProjectResponse:
        """Give a project another name."""
        return self._run(self._core.rename_project(project_id, name))

    def delete_project(self, project_id: str) -> None:
        """Forget a project; its images and results stay."""
        self._run(self._core.delete_project(project_id))

    def _run(self, steps: Steps[_T]) -> _T:
        gave: Any = None
        failed: httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(gave) if failed is None else steps.throw(failed)
            except StopIteration as end:
                return end.value
            gave = failed = None
            try:
                gave = self._do(step)
            except httpx.TransportError as err:
                failed = err

    def _do(self, step: Send | Pause | Work) -> Any:
        if isinstance(step, Send):
            return self._http.request(step.method, step.url, **step.options)
        if isinstance(step, Work):
            return step.call()
        time.sleep(step.seconds)
        return None

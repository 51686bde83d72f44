"""The synchronous client."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
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
from s3seg.client._steps import Call, Request, RetryPolicy, Sleep, SleepUnless, Step, Steps, StoppedError
from s3seg.client.arguments import check_prompts, check_sources
from s3seg.errors import InferenceError, S3segError
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.concepts import Box
from s3seg.tasks.private_files import open_private
from s3seg.tasks.tiles import Tile

if TYPE_CHECKING:
    from s3seg.images import ImageSource
    from s3seg.results.segmentation import Segmentation

_S = TypeVar("_S")
_T = TypeVar("_T")


class Client:
    """A client of the edge service. Safe to share between threads.

        with Client("https://s3seg.example", token="...") as client:
            result = client.segment("park.png", "tree")

    If the service responds with an error, the error of `s3seg.errors` with the same code is raised; if it cannot be
    reached, `UnavailableError`. Before that, requests are retried where this is safe, after the time that
    ``Retry-After`` gives, as far as the retry policy allows.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        retry_policy: RetryPolicy | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """Create a client; nothing is sent yet.

        Args:
            url: URL of the service; by default ``S3SEG_URL``.
            token: An access token; by default ``S3SEG_TOKEN``.
            timeout: Seconds to wait for the connection, and for each part of a response.
            retry_policy: How often and how long to retry a request.
            http: An httpx client to use instead of a new one; `close` leaves it open.

        Raises:
            ConfigurationError: The URL or the token is missing or not valid; the message does not repeat them.
        """
        self._set_up(Core.configured(url, token, retry_policy), timeout, http)

    @classmethod
    def signed_in(
        cls,
        url: str | None = None,
        *,
        realtime: bool | None = None,
        timeout: float = 60.0,
        retry_policy: RetryPolicy | None = None,
        http: httpx.Client | None = None,
    ) -> Client:
        """Create a client for the user who signed in on this machine with ``s3seg login``; nothing is sent yet.

        Its access token is renewed before it expires, and what is renewed is kept for other processes.

        Args:
            url: URL of the service; by default ``S3SEG_URL``.
            realtime: Wait for tasks with Supabase Realtime instead of polling; None if the service offers it. Where it
                does not work, the client polls.
            timeout: As for `Client`.
            retry_policy: As for `Client`.
            http: As for `Client`.

        Raises:
            AuthRequiredError: Nobody is signed in to the service.
            ConfigurationError: The URL is missing or not valid, the sign-in is damaged, or a package is missing.
        """
        client = cls.__new__(cls)
        client._set_up(Core.signed_in(url, retry_policy, realtime), timeout, http)
        return client

    def _set_up(self, core: Core, timeout: float, http: httpx.Client | None) -> None:
        self._http = http or httpx.Client(timeout=timeout)
        self._core = core.suited_to(self._http.timeout.read)
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
        """Close the connections."""
        if self._core.changes is not None:
            self._core.changes.close()
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
        tile: Tile | None = None,
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
        tile: Tile | None = None,
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
        tile: Tile | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Segmentation | list[Segmentation]:
        """Segment an image on the service: upload it, wait for the task, and return the same as `Segmenter.segment`.

        Each prompt costs one credit; duplicates count once. PNG, JPEG and WebP files are sent as they are, other images
        as PNG. What is larger than 10 MB is sent as JPEG with the highest quality that fits; the result's notes say so.

        Args:
            image: An image, as for `s3seg.images.load` (path, URL, bytes, file object, PIL, numpy, torch).
            prompt: What to look for: one prompt, or up to 16.
            threshold: Keep instances with a score above this, 0.1..1; by default what the checkpoint recommends.
            max_instances: Keep at most this many instances, those with the highest scores; None keeps all.
            tile: Look also into overlapping tiles of the image, for things that are too small or too many for one pass:
                the side of a tile in pixels, or "auto" for that of the model's input. Up to 4,000 instances of a prompt
                are found then, and the service refuses an image that would have too many tiles.
            project_id: Add the image and the result to this project.
            timeout: Seconds to wait for the result; after that the task is cancelled and refunded.

        Returns:
            One result for one prompt; for a sequence of prompts a list, in the same order.

        Raises:
            ImageDecodeError: The image cannot be read.
            FileTooLargeError: The image is larger than 10 MB as a JPEG of low quality too.
            PromptError: A prompt is empty, too long or not text.
            InsufficientCreditsError: The account has too few credits.
            InferenceError: The task failed; its credits were refunded.
            TimeoutError: The result was not available within ``timeout`` seconds.
        """
        return self._run(
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

    def segment_many(
        self,
        sources: Iterable[_S],
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        batch_size: int | None = None,
        on_error: Callable[[_S, S3segError], None] | None = None,
    ) -> Iterator[tuple[_S, Any]]:
        """Segment many images on the service, several at a time, and yield the results in order.

        Args:
            sources: The images, as for `segment`; consumed as needed.
            prompt: What to look for in each image: one prompt, or several.
            threshold: As for `segment`.
            max_instances: As for `segment`.
            tile: As for `segment`.
            batch_size: How many images to process at a time; by default 4.
            on_error: Called with the source and the error if an image fails, before going on with the others. By
                default the first error is raised.

        Yields:
            The source and the result of an image (a list of results if ``prompt`` is a sequence).
        """
        concurrency = batch_size or DEFAULT_CONCURRENCY
        prompts = prompt if isinstance(prompt, str) else check_prompts(prompt)  # an iterator is read only once

        stop = threading.Event()

        def one(source: _S) -> Any:
            steps = self._core.segment(source, prompts, threshold=threshold, max_instances=max_instances, tile=tile)
            return self._run(steps, stop)

        remaining = iter(check_sources(sources))
        pending: deque[tuple[_S, Future[Any]]] = deque()
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="s3seg-client")

        def start(count: int) -> None:
            pending.extend((source, pool.submit(one, source)) for source in itertools.islice(remaining, count))

        try:
            start(concurrency)
            while pending:
                source, future = pending.popleft()
                start(1)
                try:
                    result = future.result()
                except (S3segError, TimeoutError) as err:
                    if on_error is None:
                        raise
                    on_error(source, err if isinstance(err, S3segError) else InferenceError(str(err)))
                else:
                    yield source, result
        finally:
            stop.set()  # those that still run are cancelled, which refunds them
            pool.shutdown(wait=True, cancel_futures=True)

    def click(
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
        return (self.click_many(image, objects, project_id=project_id, timeout=timeout))[0]

    def click_many(
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
        return self._run(self._core.click(image, objects, project_id=project_id, timeout=timeout))

    def create_concept(
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
        return self._run(self._core.create_concept(name, examples, words=words))

    def concepts(self) -> list[ConceptResponse]:
        """Return all concepts, newest first."""
        return self._run(self._core.concepts())

    def delete_concept(self, concept_id: str) -> None:
        """Delete a concept; its images are kept."""
        self._run(self._core.delete_concept(concept_id))

    def segment_concept(
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
        return self._run(
            self._core.segment_concept(
                image,
                concept_id,
                threshold=threshold,
                max_instances=max_instances,
                project_id=project_id,
                timeout=timeout,
            )
        )

    def upload(
        self, image: ImageSource, *, project_id: str | None = None, expires_in_s: int | None = None
    ) -> UploadResponse:
        """Upload an image; pass the ``image_url`` of the response to `submit`."""
        return self._run(self._core.upload(image, project_id=project_id, expires_in_s=expires_in_s))

    def submit(
        self,
        image_url: str,
        prompt: str | Sequence[str],
        *,
        project_id: str | None = None,
        idempotency_key: str | None = None,
        expires_in_s: int | None = None,
        tile: Tile | None = None,
    ) -> SegmentResponse:
        """Create a task without waiting for its result.

        Args:
            image_url: URL of one of your uploads.
            prompt: What to look for: one prompt, or up to 16. Each costs one credit.
            project_id: Add the result to this project.
            idempotency_key: A later call with the same key returns the same task; by default a new key.
            expires_in_s: Seconds after which the result is removed, once the task has ended; by default as long as the
                service keeps results.
            tile: As for `segment`.
        """
        return self._run(
            self._core.submit(
                image_url,
                prompt,
                project_id=project_id,
                idempotency_key=idempotency_key,
                expires_in_s=expires_in_s,
                tile=tile,
            )
        )

    def task(self, task_id: str) -> TaskResponse:
        """Return the current state of a task."""
        return self._run(self._core.task(task_id))

    def wait(self, task_id: str, *, timeout: float = 600.0) -> TaskResponse:
        """Wait until a task has ended, and return it.

        Raises:
            TimeoutError: The task has not ended after ``timeout`` seconds; it is not cancelled.
        """
        return self._run(self._core.wait(task_id, timeout=timeout))

    def cancel(self, task_id: str) -> TaskResponse:
        """Cancel and refund a task; a task that has ended is returned unchanged."""
        return self._run(self._core.cancel(task_id))

    def results(
        self, *, project_id: str | None = None, page: int = 1, limit: int = 20, cursor: str | None = None
    ) -> ResultsListResponse:
        """Return one page of results, newest first; see `iter_results` for all results."""
        return self._run(self._core.results(project_id=project_id, page=page, limit=limit, cursor=cursor))

    def iter_results(self, *, project_id: str | None = None) -> Iterator[ResultSummary]:
        """Iterate over all results, newest first, fetching them page by page."""
        cursor: str | None = None
        while True:
            page = self.results(project_id=project_id, limit=100, cursor=cursor)
            yield from page.results
            cursor = page.next_cursor
            if cursor is None:
                return

    def result(self, result_id: str) -> ResultDetailResponse:
        """Return a result with all details, but without its masks."""
        return self._run(self._core.result(result_id))

    def segmentations(
        self, result_id: str, *, threshold: float | None = None, max_instances: int | None = None
    ) -> list[Segmentation]:
        """Fetch the masks of a finished result: one `Segmentation` per prompt, at any threshold from 0.1."""
        return self._run(self._core.segmentations(result_id, threshold=threshold, max_instances=max_instances))

    def delete_result(self, result_id: str) -> None:
        """Delete a result and its masks; a task that has not ended is cancelled first."""
        self._run(self._core.delete_result(result_id))

    def delete_image(self, image_id: str) -> None:
        """Delete an image and cancel its tasks that have not ended; existing results are kept."""
        self._run(self._core.delete_image(image_id))

    def me(self) -> MeResponse:
        """Return your tier, credits and rate limits."""
        return self._run(self._core.me())

    def export_account(self, path: str | os.PathLike[str]) -> Path:
        """Save all that you have on the service as a tar archive, and return its path.

        What has arrived is kept in ``{path}.partial``: if the connection is lost, the rest is fetched, now or when this
        is called again with the same path. Images and masks are not kept in memory.

        Raises:
            InvalidRequestError: The file exists already.
            UnavailableError: The service cannot be reached for a while.
        """
        return self._run(self._core.export_account(path))

    def delete_account(self, confirm: str) -> DeletedAccountResponse:
        """Delete your account and all that it has, for ever; the response says what is kept. Safe to repeat.

        Args:
            confirm: Your ``user_id``, as in `me`.
        """
        return self._run(self._core.delete_account(confirm))

    def projects(self, *, page: int = 1, limit: int = 20) -> ProjectsListResponse:
        """Return one page of projects, newest first."""
        return self._run(self._core.projects(page=page, limit=limit))

    def create_project(self, name: str) -> ProjectResponse:
        """Create a project."""
        return self._run(self._core.create_project(name))

    def rename_project(self, project_id: str, name: str) -> ProjectResponse:
        """Rename a project."""
        return self._run(self._core.rename_project(project_id, name))

    def delete_project(self, project_id: str) -> None:
        """Delete a project; its images and results are kept."""
        self._run(self._core.delete_project(project_id))

    def _run(self, steps: Steps[_T], stop: threading.Event | None = None) -> _T:
        """Take the steps of a call, and return its result.

        Args:
            steps: The call.
            stop: When it is set, `StoppedError` is thrown into the call, which may still take steps to tidy up.
        """
        result: Any = None
        error: httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(result) if error is None else steps.throw(error)
                if stop is not None and stop.is_set():
                    stop, step = None, steps.throw(StoppedError)
            except StopIteration as end:
                return end.value
            result = error = None
            try:
                if isinstance(step, Sleep) and stop is not None:
                    stop.wait(step.seconds)
                else:
                    result = self._execute(step)
            except httpx.TransportError as err:
                error = err

    def _execute(self, step: Step) -> Any:
        if isinstance(step, Request):
            if step.save_to is not None:
                return self._save(step, step.save_to)
            return self._http.request(step.method, step.url, **step.options)
        if isinstance(step, Call):
            return step.call()
        if isinstance(step, SleepUnless):
            futures.wait([step.done], step.seconds)
            return None
        time.sleep(step.seconds)
        return None

    def _save(self, request: Request, path: Path) -> httpx.Response:
        with self._http.stream(request.method, request.url, **request.options) as response:
            if response.is_success:
                with open(path, "ab", opener=open_private) as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            else:
                response.read()
        return response

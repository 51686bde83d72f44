"""`Local`: the whole service in this process, without HTTP and tokens, with the same batching and results."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, overload

from s3seg import images
from s3seg.client._images import EncodedImage, prepare
from s3seg.client.arguments import check_numbers, check_prompts, one_each, without_duplicates
from s3seg.edge.storing import store_picture
from s3seg.edge.uploads import Upload, inspect
from s3seg.errors import InferenceError, NotFoundError
from s3seg.images import ImageSource
from s3seg.inference.engine import Engine
from s3seg.results import instances_file
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.ports import ObjectStore, TaskStore, WorkerNotifier
from s3seg.tasks.records import Identity, StoredImage


class Local:
    """Segment pictures with a service in this process, as one user. Created by `s3seg.local`.

        async with s3seg.local() as service:
            trees = await service.segment("park.png", "tree")
            trees, suns = await service.segment("park.png", ["tree", "sun"])

    `segment` takes and returns the same as `s3seg.Client.segment`. Concurrent calls share forward passes.

    Attributes:
        user: The user that all tasks belong to.
    """

    def __init__(
        self,
        *,
        objects: ObjectStore,
        tasks: TaskStore,
        inference: WorkerNotifier,
        engine: Engine,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.user = Identity(user_id=str(uuid.uuid4()), tier=Tier.ENTERPRISE)
        self._objects = objects
        self._tasks = tasks
        self._inference = inference
        self._engine = engine
        self._close = close

    async def __aenter__(self) -> Self:
        self._engine.start()
        await self._engine.loaded()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.aclose()
        await self._close()

    async def upload(self, image: ImageSource) -> StoredImage:
        """Store a picture. PNG, JPEG and WebP files are stored as they are, other pictures as PNG.

        Args:
            image: A picture, as for `s3seg.images.load` (path, URL, bytes, file object, PIL, numpy, torch).

        Raises:
            FileTooLargeError: It has more than `s3seg.images.MAX_BYTES` bytes (over HTTP the limit is 10 MB).
            ImageDecodeError: It cannot be read.
        """
        return await self._store(await asyncio.to_thread(prepare, image, max_bytes=images.MAX_BYTES))

    async def submit(self, image: StoredImage, prompt: str | Iterable[str]) -> Task:
        """Submit a task for one prompt or several, and wake the worker. Duplicates count once.

        Raises:
            PromptError: A prompt is empty, too long or not text, or there are none or more than 16.
        """
        request = TaskRequest(image_url=image.image_url, prompts=without_duplicates(check_prompts(prompt)))
        submitted = await self._tasks.submit(self.user, request)
        await self._inference.wake(submitted.task)
        return submitted.task

    async def finished(self, task: Task) -> Task:
        """Wait until a task has ended, and return it; it is processed at once if no worker has it yet.

        Raises:
            UnavailableError: The worker is at capacity; try again later.
        """
        return await self._engine.worker.predict(task.task_id)

    async def results(
        self, task: Task, *, threshold: float | None = None, max_instances: int | None = None
    ) -> list[Segmentation]:
        """Read the results of a task that is done: one for each of its prompts.

        Args:
            task: The task.
            threshold: Keep instances with a score above this, 0.1..1; by default what the checkpoint recommends.
            max_instances: Keep at most this many instances, those with the highest scores; None keeps all.

        Raises:
            InferenceError: The task failed; the message says why.
            NotFoundError: Its instances file is not in the object store.
        """
        check_numbers(threshold, max_instances)
        if task.error_message is not None:
            raise InferenceError(task.error_message)
        key = self._objects.key_of(task.metadata["instances_url"])
        if key is None:
            raise NotFoundError(f"the instances file of task {task.task_id} is not in this object store")
        content = await self._objects.get(key)
        return await asyncio.to_thread(instances_file.read, content, threshold=threshold, max_instances=max_instances)

    @overload
    async def segment(  # pyright: ignore[reportOverlappingOverload] (a str is an iterable of str)
        self,
        image: StoredImage | ImageSource,
        prompt: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Segmentation: ...
    @overload
    async def segment(
        self,
        image: StoredImage | ImageSource,
        prompt: Iterable[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> list[Segmentation]: ...
    async def segment(
        self,
        image: StoredImage | ImageSource,
        prompt: str | Iterable[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment a picture: store it if it is not stored yet, submit a task, wait for it, and read the results.

        Args:
            image: A picture, as for `upload`, or one that `upload` has stored.
            prompt: What to look for: one prompt, or up to 16.
            threshold: As for `results`.
            max_instances: As for `results`.

        Returns:
            One result for one prompt; for several prompts a list, in the same order.

        Raises:
            S3segError: As the other methods do.
        """
        prompts = check_prompts(prompt)
        check_numbers(threshold, max_instances)
        shown: dict[str, Any] = {}  # what the results show of the picture
        if isinstance(image, StoredImage):
            stored = image
        else:
            encoded = await asyncio.to_thread(prepare, image, max_bytes=images.MAX_BYTES)
            stored = await self._store(encoded)
            shown = encoded.shown
        task = await self.finished(await self.submit(stored, prompts))
        found = await self.results(task, threshold=threshold, max_instances=max_instances)
        results = [replace(one, **shown, timings=dict(one.timings)) for one in one_each(prompts, found)]
        return results[0] if isinstance(prompt, str) else results

    async def _store(self, image: EncodedImage) -> StoredImage:
        picture = await asyncio.to_thread(inspect, image.data, max_pixels=images.MAX_PIXELS, max_bytes=images.MAX_BYTES)
        upload = Upload(data=image.data)
        return await store_picture(self.user, upload, picture, objects=self._objects, tasks=self._tasks)

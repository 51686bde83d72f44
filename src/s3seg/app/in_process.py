"""`Local`: the whole service in this process, without HTTP and tokens, with the same batching and results."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from s3seg import images
from s3seg.edge.storing import store_picture
from s3seg.edge.uploads import Upload, inspect
from s3seg.errors import InferenceError, NotFoundError
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
            trees, suns = await service.segment(Path("park.png").read_bytes(), ["tree", "sun"])

    Concurrent calls share forward passes.

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

    async def upload(self, content: bytes) -> StoredImage:
        """Store a picture.

        Args:
            content: The bytes of a PNG, JPEG or WebP file.

        Raises:
            FileTooLargeError: It has more than `s3seg.images.MAX_BYTES` bytes (over HTTP the limit is 10 MB).
            ImageDecodeError: It has another type, or cannot be read.
        """
        picture = await asyncio.to_thread(inspect, content, max_pixels=images.MAX_PIXELS, max_bytes=images.MAX_BYTES)
        return await store_picture(self.user, Upload(data=content), picture, objects=self._objects, tasks=self._tasks)

    async def submit(self, image: StoredImage, prompts: Sequence[str]) -> Task:
        """Submit a task, and wake the worker."""
        request = TaskRequest(image_url=image.image_url, prompts=tuple(prompts))
        submitted = await self._tasks.submit(self.user, request)
        await self._inference.wake(submitted.task)
        return submitted.task

    async def finished(self, task: Task) -> Task:
        """Wait until a task has ended, and return it; it is processed at once if no worker has it yet.

        Raises:
            UnavailableError: The worker is at capacity; try again later.
        """
        return await self._engine.worker.predict(task.task_id)

    async def results(self, task: Task) -> list[Segmentation]:
        """Read the results of a task that is done: one for each prompt, above the default threshold.

        Raises:
            InferenceError: The task failed; the message says why.
            NotFoundError: Its instances file is not in the object store.
        """
        if task.error_message is not None:
            raise InferenceError(task.error_message)
        key = self._objects.key_of(task.metadata["instances_url"])
        if key is None:
            raise NotFoundError(f"the instances file of task {task.task_id} is not in this object store")
        content = await self._objects.get(key)
        return await asyncio.to_thread(instances_file.read, content)

    async def segment(self, image: StoredImage | bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """Segment a picture: upload it if it is not stored, submit a task, wait for it, and read the results.

        Raises:
            S3segError: As the other methods do.
        """
        stored = await self.upload(image) if isinstance(image, bytes) else image
        return await self.results(await self.finished(await self.submit(stored, prompts)))

"""The whole service within a program: no HTTP, no tokens, the same pipeline, batching and results."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from s3seg import images
from s3seg.edge.storing import store_picture
from s3seg.edge.uploads import Upload, inspect
from s3seg.errors import InferenceError, NotFoundError
from s3seg.inference.engine import Engine
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.ports import ObjectStore, TaskStore, WorkerNotifier
from s3seg.tasks.records import Identity, StoredImage


class Local:
    """Submit pictures and prompts as one user, get results.

        async with s3seg.local() as service:
            cats, dogs = await service.segment(Path("park.png").read_bytes(), ["cat", "dog"])

    Calls at the same time share forward passes. Made by `s3seg.local`.

    Attributes:
        user: Whose tasks they are.
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
        """Store an encoded picture (PNG, JPEG or WebP).

        Raises:
            FileTooLargeError: It has more than `s3seg.images.MAX_BYTES`; the edge takes 10 MB only.
            ImageDecodeError: It is of another type, or cannot be read.
        """
        picture = await asyncio.to_thread(inspect, content, max_pixels=images.MAX_PIXELS, max_bytes=images.MAX_BYTES)
        return await store_picture(self.user, Upload(data=content), picture, objects=self._objects, tasks=self._tasks)

    async def submit(self, image: StoredImage, prompts: Sequence[str]) -> Task:
        """Accept a task, as the edge does."""
        request = TaskRequest(image_url=image.image_url, prompts=tuple(prompts))
        submitted = await self._tasks.submit(self.user, request)
        await self._inference.wake(submitted.task)
        return submitted.task

    async def finished(self, task: Task) -> Task:
        """Work on a task, or wait for who does, until it has ended.

        Raises:
            UnavailableError: Too much is going on already.
        """
        return await self._engine.worker.predict(task.task_id)

    async def results(self, task: Task) -> list[Segmentation]:
        """What a task that is done has found, one result a prompt, above the default threshold.

        Raises:
            InferenceError: The task ended in error; says why.
        """
        if task.error_message is not None:
            raise InferenceError(task.error_message)
        key = self._objects.key_of(task.metadata["instances_url"])
        if key is None:
            raise NotFoundError(f"task {task.task_id} has no list of instances")
        stored = json.loads(await self._objects.get(key))
        every = [Segmentation.from_dict(result) for result in stored["results"]]
        return [result.filter(lambda one: one.score > stored["threshold"]) for result in every]

    async def segment(self, image: StoredImage | bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """All of it: upload if need be, submit, wait, read the results.

        Raises:
            S3segError: As the steps do.
        """
        stored = await self.upload(image) if isinstance(image, bytes) else image
        return await self.results(await self.finished(await self.submit(stored, prompts)))

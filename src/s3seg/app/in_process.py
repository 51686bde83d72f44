"""`Local`: the whole service in this process, without HTTP and tokens, with the same batching and results."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, overload

from s3seg import images
from s3seg.client._images import EncodedImage, prepare
from s3seg.client.arguments import check_numbers, check_objects, check_prompts, one_each, without_duplicates
from s3seg.edge.storing import store_picture
from s3seg.edge.uploads import Upload, inspect
from s3seg.errors import InferenceError, NotFoundError
from s3seg.images import ImageSource
from s3seg.inference.engine import Engine
from s3seg.results import instances_file
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.clicks import Clicks, click_texts
from s3seg.tasks.concepts import Box, ConceptDefinition, ConceptExample
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.ports import ObjectStore, TaskStore, WorkerNotifier
from s3seg.tasks.records import Concept, Identity, StoredImage
from s3seg.tasks.tiles import Tile, checked_tile_of_service
from s3seg.tasks.visual import visual_of_clicks, visual_of_concept, visual_of_tiles


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

    async def click(
        self,
        image: StoredImage | ImageSource,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] | None = None,
        *,
        box: Sequence[float] | None = None,
    ) -> Segmentation:
        """Segment the one object that points, a box, or both show; takes and returns the same as `Client.click`.

        Raises:
            S3segError: As the other methods do.
        """
        return (await self.click_many(image, [Clicks(points, labels, box)]))[0]

    async def click_many(self, image: StoredImage | ImageSource, objects: Sequence[Clicks]) -> list[Segmentation]:
        """Segment up to 16 objects of one picture in one task; takes and returns the same as `Client.click_many`.

        Raises:
            S3segError: As the other methods do.
        """
        unique = check_objects(objects)
        stored, shown = await self._stored(image)
        request = TaskRequest(image_url=stored.image_url, prompts=click_texts(unique), visual=visual_of_clicks(unique))
        found = await self.results(await self._finish(request))
        by_object = dict(zip(unique, found, strict=True))
        return [replace(by_object[one], prompt="", **shown) for one in objects]

    async def create_concept(
        self,
        name: str,
        examples: Sequence[tuple[StoredImage | ImageSource, Sequence[Box], Sequence[Box]]],
        *,
        words: str | None = None,
    ) -> Concept:
        """Keep what boxes show on pictures as a concept; takes the same as `Client.create_concept`.

        Raises:
            S3segError: As the other methods do.
        """
        shown = []
        for image, boxes, negative_boxes in examples:
            stored, _ = await self._stored(image)
            shown.append(ConceptExample(stored.image_url, tuple(boxes), tuple(negative_boxes)))
        if words is not None:
            (words,) = check_prompts(words)
        definition = ConceptDefinition(words, tuple(shown))
        return await self._tasks.create_concept(self.user, name, definition.to_dict())

    async def concepts(self) -> Sequence[Concept]:
        """Return all concepts, newest first."""
        return await self._tasks.list_concepts(self.user)

    async def delete_concept(self, concept_id: str) -> None:
        """Delete a concept, or raise NotFoundError."""
        await self._tasks.delete_concept(self.user, concept_id)

    async def segment_concept(
        self,
        image: StoredImage | ImageSource,
        concept_id: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Segmentation:
        """Segment every instance of a concept; takes and returns the same as `Client.segment_concept`.

        Raises:
            NotFoundError: There is no such concept.
            S3segError: As the other methods do.
        """
        check_numbers(threshold, max_instances)
        concept = await self._tasks.get_concept(self.user, concept_id)
        stored, shown = await self._stored(image)
        request = TaskRequest(image_url=stored.image_url, prompts=(concept.name,), visual=visual_of_concept(concept))
        task = await self._finish(request)
        (found,) = await self.results(task, threshold=threshold, max_instances=max_instances)
        return replace(found, **shown)

    async def _finish(self, request: TaskRequest) -> Task:
        """Submit a task, wake the worker, and wait for its end."""
        submitted = await self._tasks.submit(self.user, request)
        await self._inference.wake(submitted.task)
        return await self.finished(submitted.task)

    async def submit(self, image: StoredImage, prompt: str | Iterable[str], *, tile: Tile | None = None) -> Task:
        """Submit a task for one prompt or several, and wake the worker. Duplicates count once.

        Args:
            image: What `upload` returned.
            prompt: What to look for.
            tile: As for `segment`.

        Raises:
            PromptError: A prompt is empty, too long or not text, or there are none or more than 16.
            InvalidRequestError: The tile is out of range.
        """
        tile = checked_tile_of_service(tile)
        request = TaskRequest(
            image_url=image.image_url,
            prompts=without_duplicates(check_prompts(prompt)),
            visual=None if tile is None else visual_of_tiles(tile),
        )
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
        tile: Tile | None = None,
    ) -> Segmentation: ...
    @overload
    async def segment(
        self,
        image: StoredImage | ImageSource,
        prompt: Iterable[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
    ) -> list[Segmentation]: ...
    async def segment(
        self,
        image: StoredImage | ImageSource,
        prompt: str | Iterable[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment a picture: store it if it is not stored yet, submit a task, wait for it, and read the results.

        Args:
            image: A picture, as for `upload`, or one that `upload` has stored.
            prompt: What to look for: one prompt, or up to 16.
            threshold: As for `results`.
            max_instances: As for `results`.
            tile: Look also into overlapping tiles of the picture: their side in pixels, or "auto"; see
                `Segmenter.segment`.

        Returns:
            One result for one prompt; for several prompts a list, in the same order.

        Raises:
            S3segError: As the other methods do.
        """
        prompts = check_prompts(prompt)
        check_numbers(threshold, max_instances)
        stored, shown = await self._stored(image)
        task = await self.finished(await self.submit(stored, prompts, tile=tile))
        found = await self.results(task, threshold=threshold, max_instances=max_instances)
        results = [replace(one, **shown, timings=dict(one.timings)) for one in one_each(prompts, found)]
        return results[0] if isinstance(prompt, str) else results

    async def _stored(self, image: StoredImage | ImageSource) -> tuple[StoredImage, dict[str, Any]]:
        """Return the stored picture, and what results show of it."""
        if isinstance(image, StoredImage):
            return image, {}
        encoded = await asyncio.to_thread(prepare, image, max_bytes=images.MAX_BYTES)
        return await self._store(encoded), encoded.shown

    async def _store(self, image: EncodedImage) -> StoredImage:
        picture = await asyncio.to_thread(inspect, image.data, max_pixels=images.MAX_PIXELS, max_bytes=images.MAX_BYTES)
        upload = Upload(data=image.data)
        return await store_picture(self.user, upload, picture, objects=self._objects, tasks=self._tasks)

"""Requests that wait together share forward passes.

    read (CPU threads)  ->  encode, find (one thread that owns the network)  ->  masks (CPU threads)

A batch is what waits when the network becomes free, never a delay: an idle service answers at once, a busy one
fills its batches. Pictures are known by the SHA-256 of their bytes: a repeat is neither read nor encoded again.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from s3seg.errors import InferenceError, OutOfMemoryError
from s3seg.inference.embedding_cache import EmbeddingCache
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.inference.stages import EncodedImage, Network, ResizedImage
from s3seg.results.segmentation import Segmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the network is given at once.

    Attributes:
        pictures: Pictures encoded in one pass.
        prompts: Prompts decoded in one go: more are not faster, and keep the masks of the first waiting.
        cache_bytes: Memory for embeddings of earlier pictures.
    """

    pictures: int = 8
    prompts: int = 12
    cache_bytes: int = 1 << 30


@dataclass(slots=True, eq=False)
class _Job:
    """One request's turn on the network."""

    digest: bytes
    picture: ResizedImage | EncodedImage
    prompts: tuple[str, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[_Seen]
    on_begin: Callable[[], None]
    since: float = field(default_factory=time.perf_counter)
    dropped: bool = False

    def begin(self) -> None:
        """Say that the network begins with it."""
        self._on_loop(self.on_begin)

    def settle(self, seen: _Seen | BaseException) -> None:
        """Hand over what was found, or what went wrong."""

        def tell() -> None:
            if self.future.done():
                return
            if isinstance(seen, BaseException):
                self.future.set_exception(seen)
            else:
                self.future.set_result(seen)

        self._on_loop(tell)

    def _on_loop(self, call: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


@dataclass(frozen=True, slots=True)
class _Seen:
    found: list[Any]
    image_s: float
    prompt_s: float


class Batcher:
    """Segments pictures for many callers at once. Made and used on one event loop; has a thread of its own.

    Args:
        network: What sees.
        cpu: Threads for reading pictures and making masks.
        limits: See `Limits`.
        meter: Who measures.
    """

    def __init__(
        self, network: Network, *, cpu: Executor, limits: Limits | None = None, meter: InferenceMetrics | None = None
    ) -> None:
        self._network = network
        self._cpu = cpu
        self._limits = limits or Limits()
        self._meter = meter or NoMetrics()
        self._cache = EmbeddingCache(self._limits.cache_bytes)
        self._reading: dict[bytes, asyncio.Task[ResizedImage]] = {}
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="s3seg-network", daemon=True)
        self._thread.start()

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default."""
        return self._network.threshold

    @property
    def waiting(self) -> int:
        """Requests that wait for the network now."""
        return self._jobs.qsize()

    @property
    def cache_bytes(self) -> int:
        """Memory that embeddings take now."""
        return self._cache.nbytes

    async def segment(
        self, content: bytes, prompts: Sequence[str], *, name: str, on_begin: Callable[[], None] = lambda: None
    ) -> list[Segmentation]:
        """Find what each prompt says; every instance above `s3seg.inference.stages.INSTANCES_ABOVE`.

        If the caller is cancelled while it waits for the network, its turn is dropped.

        Args:
            content: An encoded picture.
            prompts: What to look for, in order.
            name: What messages call the picture.
            on_begin: Called on the event loop as soon as the network begins with it.

        Raises:
            ImageDecodeError: The picture cannot be read.
            PromptError: A prompt does not fit the model.
            InferenceError: The network failed, twice where a smaller batch made sense.
        """
        loop = asyncio.get_running_loop()
        self._network.check_prompts(prompts)
        start = time.perf_counter()
        digest, picture = await self._read(content, name)
        read_s = time.perf_counter() - start
        job = _Job(digest, picture, tuple(prompts), loop, loop.create_future(), on_begin)
        self._jobs.put(job)
        try:
            seen = await job.future
        except asyncio.CancelledError:
            job.dropped = True
            raise
        start = time.perf_counter()
        timings = {"decode": read_s * 1000, "image": seen.image_s * 1000, "prompt": seen.prompt_s * 1000}
        results = await asyncio.gather(
            *(
                loop.run_in_executor(self._cpu, self._network.result, picture.size, prompt, found, timings)
                for prompt, found in zip(prompts, seen.found, strict=True)
            )
        )
        for stage, seconds in (
            ("read", read_s),
            ("image", seen.image_s),
            ("prompt", seen.prompt_s * len(prompts)),
            ("masks", time.perf_counter() - start),
        ):
            self._meter.stage(stage, seconds)
        return list(results)

    async def aclose(self) -> None:
        """Let the batch in hand finish, then end the thread."""
        self._jobs.put(None)
        while self._thread.is_alive():
            await asyncio.sleep(0.01)

    async def _read(self, content: bytes, name: str) -> tuple[bytes, ResizedImage | EncodedImage]:
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._cpu, lambda: hashlib.sha256(content).digest())
        known = self._cache.get(digest)
        if known is not None:
            return digest, known
        reading = self._reading.get(digest)
        if reading is None:
            reading = asyncio.ensure_future(self._read_once(digest, content, name))
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to who still waits
            self._reading[digest] = reading
        return digest, await asyncio.shield(reading)  # one who leaves must not stop it for the others

    async def _read_once(self, digest: bytes, content: bytes, name: str) -> ResizedImage:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._cpu, lambda: self._network.read(content, name=name))
        finally:
            del self._reading[digest]

    # ---- on the network's thread ----

    def _serve(self) -> None:
        held: _Job | None = None
        while True:
            first = held or self._jobs.get()
            if first is None:
                return
            batch, held, stopping = self._take(first)
            batch = [job for job in batch if not job.dropped]
            if batch:
                self._run(batch)
            if stopping:
                return

    def _take(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """What waits and fits, in order; then the first that did not fit, and whether to stop after it."""
        batch, digests, prompts = [first], {first.digest}, len(first.prompts)
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return batch, None, False
            if job is None:
                return batch, None, True
            digests.add(job.digest)
            prompts += len(job.prompts)
            if len(digests) > self._limits.pictures or prompts > self._limits.prompts:
                return batch, job, False
            batch.append(job)

    def _run(self, batch: list[_Job]) -> None:
        now = time.perf_counter()
        for job in batch:
            self._meter.stage("wait", now - job.since)
            job.begin()
        try:
            self._attempt(batch)
        except InferenceError as err:
            self._again(batch, err)
        except BaseException as err:
            for job in batch:
                job.settle(err)

    def _again(self, batch: list[_Job], err: InferenceError) -> None:
        """Try once more with less at once: in halves, with memory freed if that was the trouble."""
        if isinstance(err, OutOfMemoryError):
            self._cache.clear()
            self._network.free()
        elif len(batch) == 1:
            batch[0].settle(err)
            return
        self._meter.split()
        middle = (len(batch) + 1) // 2
        for part in filter(None, (batch[:middle], batch[middle:])):
            try:
                self._attempt(part)
            except BaseException as second:
                for job in part:
                    job.settle(second)

    def _attempt(self, batch: list[_Job]) -> None:
        start = time.perf_counter()
        images, fresh = self._encode(batch)
        encoded = time.perf_counter()
        found = self._network.find([(images[job.digest], job.prompts) for job in batch])
        prompts = sum(len(job.prompts) for job in batch)
        image_s = (encoded - start) / max(1, len(fresh))
        prompt_s = (time.perf_counter() - encoded) / prompts
        self._meter.batch(pictures=len(fresh), prompts=prompts)
        for job, what in zip(batch, found, strict=True):
            job.settle(_Seen(what, image_s if job.digest in fresh else 0.0, prompt_s))

    def _encode(self, batch: list[_Job]) -> tuple[dict[bytes, EncodedImage], frozenset[bytes]]:
        """Every picture's embedding; those that are new are encoded together, and told."""
        images: dict[bytes, EncodedImage] = {}
        new: dict[bytes, ResizedImage] = {}
        for job in batch:
            known = job.picture if isinstance(job.picture, EncodedImage) else self._cache.get(job.digest)
            self._meter.cache(hit=known is not None or job.digest in new)
            if known is not None:
                images[job.digest] = known
            elif isinstance(job.picture, ResizedImage):
                new[job.digest] = job.picture
        if new:
            for digest, image in zip(new, self._network.encode(list(new.values())), strict=True):
                images[digest] = image
                self._cache.put(digest, image)
        return images, frozenset(new)

"""Dynamic batching: requests that wait for the network at the same time share forward passes.

    read (processes)  ->  encode, predict (one thread that owns the network)  ->  make results (CPU threads)

A batch is whatever waits when the network becomes free; there is no delay to fill it. An idle service answers at once,
and a busy one fills its batches. Pictures are identified by the SHA-256 of their bytes, so that a repeated picture is
neither read nor encoded again, and a prompt that a batch asks of the same picture twice is decoded once.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from s3seg.decoding import DecodingPool
from s3seg.errors import InferenceError, OutOfMemoryError
from s3seg.inference.embedding_cache import EmbeddingCache
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.inference.process_guard import ProcessGuard
from s3seg.inference.stages import EncodedImage, Network, ResizedImage, make_result
from s3seg.results.instances_file import MIN_SCORE
from s3seg.results.segmentation import Segmentation

if TYPE_CHECKING:
    from s3seg.sam3.predictor import Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The size of batches, and of the cache of embeddings.

    Attributes:
        pictures: Pictures encoded in one pass.
        prompts: Prompts decoded in one batch, each counted once for a picture. More are not faster, and delay the
            results of the first ones.
        cache_bytes: Device memory for embeddings of earlier pictures.
    """

    pictures: int = 8
    prompts: int = 12
    cache_bytes: int = 1 << 30


@dataclass(slots=True, eq=False)
class _Job:
    """A request that waits for the network, or is being processed by it."""

    digest: bytes
    picture: ResizedImage | EncodedImage
    prompts: tuple[str, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[_Prediction]
    on_begin: Callable[[], None]
    since: float = field(default_factory=time.perf_counter)
    dropped: bool = False

    @property
    def pairs(self) -> list[tuple[bytes, str]]:
        """What is asked of the network: for each prompt the picture's digest, and the prompt."""
        return [(self.digest, prompt) for prompt in self.prompts]

    def begin(self) -> None:
        """Call ``on_begin`` on the event loop."""
        self._on_loop(self.on_begin)

    def settle(self, outcome: _Prediction | BaseException) -> None:
        """Give the request its prediction, or the error."""

        def set_outcome() -> None:
            if self.future.done():
                return
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        self._on_loop(set_outcome)

    def _on_loop(self, call: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed, so nobody waits for this any more
            return


@dataclass(frozen=True, slots=True)
class _Prediction:
    detections: list[Detections]
    """One for each prompt of the job."""
    image_s: float
    prompt_s: float
    photograph: bool
    """`EncodedImage.photograph` of the picture."""


class Batcher:
    """Segments pictures for many concurrent callers.

    Create and use it on one event loop. It runs the network on a thread of its own.

    Args:
        network: The network.
        cpu: Threads for making results, and for reading pictures if there are no decoding processes.
        decoding: Processes that read pictures, with `s3seg.inference.decoding.read_resized`; their maker closes them.
        limits: The size of batches and of the cache.
        metrics: Receives measurements.
    """

    def __init__(
        self,
        network: Network,
        *,
        cpu: Executor,
        decoding: DecodingPool | None = None,
        limits: Limits | None = None,
        metrics: InferenceMetrics | None = None,
    ) -> None:
        self.network = network
        self._cpu = cpu
        self._decoding = decoding
        self._limits = limits or Limits()
        self._metrics = metrics or NoMetrics()
        self._cache = EmbeddingCache(self._limits.cache_bytes)
        self._reading: dict[bytes, asyncio.Task[ResizedImage]] = {}
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._guard = ProcessGuard("this Batcher")
        self._thread = threading.Thread(target=self._run_batches, name="s3seg-network", daemon=True)
        self._thread.start()

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default, 0..1."""
        return self.network.threshold

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the network."""
        return self._jobs.qsize()

    @property
    def cache_bytes(self) -> int:
        """Device memory that cached embeddings take."""
        return self._cache.nbytes

    async def segment(
        self,
        content: bytes,
        prompts: Sequence[str],
        *,
        name: str,
        user_id: str = "",
        on_begin: Callable[[], None] = lambda: None,
    ) -> list[Segmentation]:
        """Segment a picture: for each prompt every instance above `s3seg.results.instances_file.MIN_SCORE`.

        If the caller is cancelled while the request waits for the network, the request is dropped.

        Args:
            content: The bytes of a picture file.
            prompts: What to look for.
            name: What error messages call the picture.
            user_id: Whose picture it is; decoding processes read one of a user at a time.
            on_begin: Called on the event loop when the network begins with the request.

        Returns:
            One result for each prompt, in order.

        Raises:
            ImageDecodeError: The picture cannot be read, or takes too long to decode.
            PromptError: A prompt does not fit the model.
            InferenceError: The network failed, also in the second attempt if there was one.
        """
        self._guard.check()
        loop = asyncio.get_running_loop()
        self.network.check_prompts(prompts)
        start = time.perf_counter()
        digest, picture = await self._read(content, name, user_id)
        read_s = time.perf_counter() - start
        job = _Job(digest, picture, tuple(prompts), loop, loop.create_future(), on_begin)
        self._jobs.put(job)
        try:
            prediction = await job.future
        except asyncio.CancelledError:
            job.dropped = True
            raise
        start = time.perf_counter()
        timings = {"decode": read_s * 1000, "image": prediction.image_s * 1000, "prompt": prediction.prompt_s * 1000}
        make = partial(
            make_result,
            self.network,
            picture.size,
            threshold=MIN_SCORE,
            timings=timings,
            photograph=prediction.photograph,
            image_id=f"file:{digest.hex()[:16]}",
        )
        results = await asyncio.gather(
            *(
                loop.run_in_executor(self._cpu, make, prompt, detections)
                for prompt, detections in zip(prompts, prediction.detections, strict=True)
            )
        )
        for stage, seconds in (
            ("read", read_s),
            ("image", prediction.image_s),
            ("prompt", prediction.prompt_s * len(prompts)),
            ("masks", time.perf_counter() - start),
        ):
            self._metrics.stage(stage, seconds)
        return list(results)

    async def aclose(self) -> None:
        """Finish the current batch, then end the thread."""
        self._jobs.put(None)
        while self._thread.is_alive():
            await asyncio.sleep(0.01)

    async def _read(self, content: bytes, name: str, user_id: str) -> tuple[bytes, ResizedImage | EncodedImage]:
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._cpu, lambda: hashlib.sha256(content).digest())
        cached = self._cache.get(digest)
        if cached is not None:
            return digest, cached
        reading = self._reading.get(digest)
        if reading is None:
            reading = asyncio.ensure_future(self._read_once(digest, content, name, user_id))
            # marks the exception as retrieved; callers that still wait get it from their own await
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._reading[digest] = reading
        return digest, await asyncio.shield(reading)  # shared: one caller's cancellation must not stop it

    async def _read_once(self, digest: bytes, content: bytes, name: str, user_id: str) -> ResizedImage:
        loop = asyncio.get_running_loop()
        try:
            if self._decoding is not None:
                return await self.network.read_in(self._decoding, content, name=name, user_id=user_id)
            return await loop.run_in_executor(self._cpu, lambda: self.network.read(content, name=name))
        finally:
            del self._reading[digest]

    # ---- on the network's thread ----

    def _run_batches(self) -> None:
        held: _Job | None = None
        while True:
            first = held or self._jobs.get()
            if first is None:
                return
            batch, held, stopping = self._next_batch(first)
            batch = [job for job in batch if not job.dropped]
            if batch:
                self._run(batch)
            if stopping:
                return

    def _next_batch(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """Take waiting jobs, in order, until a limit is reached.

        Returns:
            The batch, the first job that did not fit into it, and whether to stop after the batch.
        """
        batch, digests, pairs = [first], {first.digest}, set(first.pairs)
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return batch, None, False
            if job is None:
                return batch, None, True
            digests.add(job.digest)
            pairs.update(job.pairs)
            if len(digests) > self._limits.pictures or len(pairs) > self._limits.prompts:
                return batch, job, False
            batch.append(job)

    def _run(self, batch: list[_Job]) -> None:
        now = time.perf_counter()
        for job in batch:
            self._metrics.stage("wait", now - job.since)
            job.begin()
        try:
            self._attempt(batch)
        except InferenceError as err:
            self._retry(batch, err)
        except BaseException as err:
            for job in batch:
                job.settle(err)

    def _retry(self, batch: list[_Job], err: InferenceError) -> None:
        """Try a failed batch once more in two halves; if it ran out of memory, free memory first."""
        if isinstance(err, OutOfMemoryError):
            self._cache.clear()
            self.network.free()
        elif len(batch) == 1:
            batch[0].settle(err)
            return
        self._metrics.split()
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
        pairs = list(dict.fromkeys(pair for job in batch for pair in job.pairs))
        detections = self.network.predict([(images[digest], prompt) for digest, prompt in pairs])
        found = dict(zip(pairs, detections, strict=True))
        image_s = (encoded - start) / max(1, len(fresh))
        prompt_s = (time.perf_counter() - encoded) / len(pairs)
        self._metrics.batch(pictures=len(fresh), prompts=len(pairs))
        for job in batch:
            own = [found[pair] for pair in job.pairs]
            own_image_s = image_s if job.digest in fresh else 0.0
            job.settle(_Prediction(own, own_image_s, prompt_s, images[job.digest].photograph))

    def _encode(self, batch: list[_Job]) -> tuple[dict[bytes, EncodedImage], frozenset[bytes]]:
        """Encode the pictures that are not in the cache, together.

        Returns:
            The encoded pictures of the batch by digest, and the digests of those that were encoded now.
        """
        images: dict[bytes, EncodedImage] = {}
        new: dict[bytes, ResizedImage] = {}
        for job in batch:
            known = job.picture if isinstance(job.picture, EncodedImage) else self._cache.get(job.digest)
            self._metrics.cache(hit=known is not None or job.digest in new)
            if known is not None:
                images[job.digest] = known
            elif isinstance(job.picture, ResizedImage):
                new[job.digest] = job.picture
        if new:
            for digest, image in zip(new, self.network.encode(list(new.values())), strict=True):
                images[digest] = image
                self._cache.put(digest, image)
        return images, frozenset(new)

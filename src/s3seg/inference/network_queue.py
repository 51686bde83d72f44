"""One network, the requests that wait for it, and the embeddings that it has computed.

A batch is whatever waits when the network becomes free; there is no delay to fill it. An idle service answers at once,
and a busy one fills its batches.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from s3seg.errors import InferenceError, OutOfMemoryError
from s3seg.inference.embedding_cache import EmbeddingCache
from s3seg.inference.metrics import InferenceMetrics
from s3seg.inference.network import EncodedImage, Network, ResizedImage
from s3seg.tasks.clicks import Clicks

if TYPE_CHECKING:
    from s3seg.sam3.click_predictor import ClickedMasks
    from s3seg.sam3.predictor import BoxPrompt, Detections, Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The size of batches, and of the cache of embeddings.

    Attributes:
        pictures: Pictures encoded in one pass.
        prompts: Prompts decoded in one batch, each counted once for a picture. More are not faster, and delay the
            results of the first ones.
        cache_bytes: Device memory for embeddings of earlier pictures.
        tiles: Tiles that a picture may be cut into; 0 refuses all requests with tiles.
    """

    pictures: int = 8
    prompts: int = 12
    cache_bytes: int = 1 << 30
    tiles: int = 256


@dataclass(frozen=True, slots=True, eq=False)
class ReadConcept:
    """Examples whose pictures were read: digest, picture and boxes of each, and perhaps words."""

    words: str | None
    examples: tuple[tuple[bytes, ResizedImage | EncodedImage, Sequence[BoxPrompt]], ...]


Asked: TypeAlias = "str | Query | Clicks | ReadConcept"
"""What a network is asked about a picture."""


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits for the network, or is being processed by it. Create it on the event loop of its caller.

    Attributes:
        digest: SHA-256 that identifies the picture.
        picture: The picture, encoded already or not.
        prompts: What is asked about it.
        on_begin: Called on the event loop when the network begins with the request.
        is_kept: Whether the embeddings of its pictures are kept for later requests.
        future: Receives the prediction, or the error.
        since: When it was created, by `time.perf_counter`.
        dropped: Whether nobody waits for it any more, so that the network need not begin with it.
    """

    digest: bytes
    picture: ResizedImage | EncodedImage
    prompts: tuple[Asked, ...]
    on_begin: Callable[[], None] = lambda: None
    is_kept: bool = True
    future: asyncio.Future[Prediction] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    since: float = field(default_factory=time.perf_counter)
    dropped: bool = False

    @property
    def pictures(self) -> list[tuple[bytes, ResizedImage | EncodedImage]]:
        """The picture and those of examples, each with its digest."""
        concepts = [one for one in self.prompts if isinstance(one, ReadConcept)]
        examples = [(digest, picture) for concept in concepts for digest, picture, _ in concept.examples]
        return [(self.digest, self.picture), *examples]

    @property
    def pairs(self) -> list[tuple[bytes, Asked]]:
        """What is asked of the network: for each prompt the picture's digest, and the prompt."""
        return [(self.digest, prompt) for prompt in self.prompts]

    def begin(self) -> None:
        """Call ``on_begin`` on the event loop."""
        self._on_loop(self.on_begin)

    def settle(self, outcome: Prediction | BaseException) -> None:
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
            self.future.get_loop().call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed, so nobody waits for this any more
            return


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network predicted for a request, and how long it took for each picture and prompt of the batch."""

    detections: Sequence[Detections | ClickedMasks]
    """One for each prompt of the job."""
    image_s: float
    prompt_s: float
    photograph: bool
    """`EncodedImage.photograph` of the picture."""


class NetworkQueue:
    """Runs the requests for one network in batches.

    Args:
        network: The network.
        limits: The size of batches and of the cache.
        metrics: Receives measurements.
        threads: Batches that are in progress at the same time. A network in a process of its own gets two: the second
            waits in that process when the first ends, so that the accelerator need not wait for this process.
    """

    def __init__(self, network: Network, *, limits: Limits, metrics: InferenceMetrics, threads: int = 1) -> None:
        self.network = network
        self.cache = EmbeddingCache(limits.cache_bytes)
        self._limits = limits
        self._metrics = metrics
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._unfinished = 0
        self._counting = threading.Lock()
        self._taking = threading.Lock()
        self._held: Job | None = None
        self._encoding: dict[bytes, Future[EncodedImage]] = {}
        self._encoding_lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run_batches, name="s3seg-network", daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return self._jobs.qsize()

    @property
    def load(self) -> int:
        """The number of requests that wait, or are being processed."""
        return self._unfinished

    def knows(self, digest: bytes) -> bool:
        """Return whether a picture is encoded, or is being encoded."""
        return digest in self._encoding or self.cache.get(digest) is not None

    async def predict(self, jobs: Sequence[Job]) -> list[Prediction]:
        """Let requests wait for the network, and return what it predicts for each.

        If the caller is cancelled or one of them fails, those that the network has not begun with are dropped.

        Raises:
            InferenceError: The network failed, also in the second attempt if there was one.
        """
        for job in jobs:
            self._count(1)
            self._jobs.put(job)
        try:
            return await asyncio.gather(*(job.future for job in jobs))
        except BaseException:
            for job in jobs:
                job.dropped = True
            raise

    def _count(self, requests: int) -> None:
        with self._counting:
            self._unfinished += requests

    async def aclose(self) -> None:
        """Finish the batches that are in progress, then end the threads and the network."""
        for _ in self._threads:
            self._jobs.put(None)
        while any(thread.is_alive() for thread in self._threads):
            await asyncio.sleep(0.01)
        self.network.close()

    # ---- on the network's threads ----

    def _run_batches(self) -> None:
        while True:
            with self._taking:
                batch = self._next_batch()
            if not batch:
                return
            if wanted := [job for job in batch if not job.dropped]:
                self._run(wanted)
            self._count(-len(batch))

    def _next_batch(self) -> list[Job]:
        """Wait for jobs, and take those that wait, in order, until a limit is reached. An empty list means the end."""
        first, self._held = self._held or self._jobs.get(), None
        if first is None:
            return []
        batch, digests, pairs = [first], {digest for digest, _ in first.pictures}, set(first.pairs)
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return batch
            if job is None:
                self._jobs.put(None)  # it is the end of the next batch
                return batch
            digests.update(digest for digest, _ in job.pictures)
            pairs.update(job.pairs)
            if len(digests) > self._limits.pictures or len(pairs) > self._limits.prompts:
                self._held = job
                return batch
            batch.append(job)

    def _run(self, batch: list[Job]) -> None:
        now = time.perf_counter()
        for job in batch:
            self._metrics.stage("wait", now - job.since)
            job.begin()
        try:
            try:
                self._attempt(batch)
            except InferenceError as err:
                self._retry(batch, err)
        except BaseException as err:  # also of the retry: the thread must go on
            for job in batch:
                job.settle(err)

    def _retry(self, batch: list[Job], err: InferenceError) -> None:
        """Try a failed batch once more in two halves; if it ran out of memory, free memory first.

        The cache is emptied: memory may be short, or the process that had the embeddings may have died.
        """
        self.cache.clear()
        if isinstance(err, OutOfMemoryError):
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

    def _attempt(self, batch: list[Job]) -> None:
        start = time.perf_counter()
        images, fresh = self._encode(batch)
        encoded = time.perf_counter()
        pairs = list(dict.fromkeys(pair for job in batch for pair in job.pairs))
        found = self._predict(images, pairs)
        image_s = (encoded - start) / max(1, len(fresh))
        prompt_s = (time.perf_counter() - encoded) / len(pairs)
        self._metrics.batch(pictures=len(fresh), prompts=len(pairs))
        for job in batch:
            own = [found[pair] for pair in job.pairs]
            own_image_s = image_s if job.digest in fresh else 0.0
            job.settle(Prediction(own, own_image_s, prompt_s, images[job.digest].photograph))

    def _predict(
        self, images: dict[bytes, EncodedImage], pairs: list[tuple[bytes, Asked]]
    ) -> dict[tuple[bytes, Asked], Detections | ClickedMasks]:
        """Ask the network, all prompts of words and boxes together, and all clicks on a picture."""
        found: dict[tuple[bytes, Asked], Detections | ClickedMasks] = {}
        prompts = [(digest, one) for digest, one in pairs if not isinstance(one, Clicks | ReadConcept)]
        if prompts:
            detections = self.network.predict([(images[digest], prompt) for digest, prompt in prompts])
            found.update(zip(prompts, detections, strict=True))
        clicks: dict[bytes, list[Clicks]] = {}
        for digest, one in pairs:
            if isinstance(one, Clicks):
                clicks.setdefault(digest, []).append(one)
            elif isinstance(one, ReadConcept):
                examples = [(images[of_example], boxes) for of_example, _, boxes in one.examples]
                found[digest, one] = self.network.predict_concept(images[digest], one.words, examples)
        for digest, objects in clicks.items():
            masks = self.network.click(images[digest], objects)
            found.update(((digest, one), mask) for one, mask in zip(objects, masks, strict=True))
        return found

    def _encode(self, batch: list[Job]) -> tuple[dict[bytes, EncodedImage], frozenset[bytes]]:
        """Encode the pictures that are neither in the cache nor being encoded by another thread, together.

        Returns:
            The encoded pictures of the batch by digest, and the digests of those that were encoded now.
        """
        images: dict[bytes, EncodedImage] = {}
        new: dict[bytes, ResizedImage] = {}
        others: dict[bytes, Future[EncodedImage]] = {}
        with self._encoding_lock:
            for job, (digest, picture) in ((one, pair) for one in batch for pair in one.pictures):
                known = self.cache.get(digest)
                if known is None and isinstance(picture, EncodedImage):
                    known = picture
                other = None if known is not None or digest in new else self._encoding.get(digest)
                if job.is_kept:
                    self._metrics.cache(hit=known is not None or other is not None or digest in new)
                if known is not None:
                    images[digest] = known
                elif other is not None:
                    others[digest] = other
                elif isinstance(picture, ResizedImage):
                    new[digest] = picture
            self._encoding |= {digest: Future() for digest in new}
        if new:
            kept = {digest for job in batch if job.is_kept for digest, _ in job.pictures}
            images |= self._encode_now(new, kept)
        for digest, other in others.items():  # only now: another thread may wait for what this one encodes
            images[digest] = other.result()
        return images, frozenset(new)

    def _encode_now(self, new: dict[bytes, ResizedImage], kept: Container[bytes]) -> dict[bytes, EncodedImage]:
        outcome: list[EncodedImage] | BaseException
        try:
            outcome = self.network.encode(list(new.values()))
        except BaseException as err:
            outcome = err
        with self._encoding_lock:
            promised = [self._encoding.pop(digest) for digest in new]
            if isinstance(outcome, BaseException):
                for promise in promised:
                    promise.set_exception(outcome)
                raise outcome
            for digest, promise, image in zip(new, promised, outcome, strict=True):
                if digest in kept:
                    self.cache.put(digest, image)
                promise.set_result(image)
        return dict(zip(new, outcome, strict=True))

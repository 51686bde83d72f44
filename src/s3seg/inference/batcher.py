"""Dynamic batching: requests that wait for the network at the same time share forward passes.

    read (processes)  ->  encode, predict (threads of the network)  ->  make results (CPU threads)

With several networks, one on each device, a picture goes to the one that knows it already, or else to the one with the
fewest waiting requests. Pictures are identified by the SHA-256 of their bytes, so that a repeated picture is neither
read nor encoded again, and a prompt that a batch asks of the same picture twice is decoded once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from s3seg.decoding import DecodingPool
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.inference.network_queue import Job, Limits, NetworkQueue
from s3seg.inference.process_guard import ProcessGuard
from s3seg.inference.prompts import BoxedPrompt
from s3seg.inference.stages import EncodedImage, Network, ResizedImage, make_result
from s3seg.results.instances_file import MIN_SCORE
from s3seg.results.segmentation import Segmentation


class Batcher:
    """Segments pictures for many concurrent callers.

    Create and use it on one event loop. It runs each network on threads of its own.

    Args:
        network: The network, or several with the same checkpoint on different devices.
        cpu: Threads for making results, and for reading pictures if there are no decoding processes.
        decoding: Processes that read pictures, with `s3seg.inference.decoding.read_resized`; their maker closes them.
        limits: The size of batches and of the cache.
        metrics: Receives measurements.
        threads: Of each network; see `NetworkQueue`.
    """

    def __init__(
        self,
        network: Network | Sequence[Network],
        *,
        cpu: Executor,
        decoding: DecodingPool | None = None,
        limits: Limits | None = None,
        metrics: InferenceMetrics | None = None,
        threads: int = 1,
    ) -> None:
        self.networks = list(network) if isinstance(network, Sequence) else [network]
        self.network = self.networks[0]
        self._cpu = cpu
        self._decoding = decoding
        self._metrics = metrics or NoMetrics()
        self._queues = [
            NetworkQueue(one, limits=limits or Limits(), metrics=self._metrics, threads=threads)
            for one in self.networks
        ]
        self._reading: dict[bytes, asyncio.Task[ResizedImage]] = {}
        self._guard = ProcessGuard("this Batcher")

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default, 0..1."""
        return self.network.threshold

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a network."""
        return sum(queue.waiting for queue in self._queues)

    @property
    def cache_bytes(self) -> int:
        """Device memory that cached embeddings take, on all devices."""
        return sum(queue.cache.nbytes for queue in self._queues)

    async def segment(
        self,
        content: bytes,
        prompts: Sequence[str | BoxedPrompt],
        *,
        name: str,
        user_id: str = "",
        on_begin: Callable[[], None] = lambda: None,
    ) -> list[Segmentation]:
        """Segment a picture: for each prompt every instance above `s3seg.results.instances_file.MIN_SCORE`.

        If the caller is cancelled while the request waits for the network, the request is dropped.

        Args:
            content: The bytes of a picture file.
            prompts: What to look for, in words or with boxes that show it.
            name: What error messages call the picture.
            user_id: Whose picture it is; decoding processes read one of a user at a time.
            on_begin: Called on the event loop when the network begins with the request.

        Returns:
            One result for each prompt, in order.

        Raises:
            ImageDecodeError: The picture cannot be read, or takes too long to decode.
            PromptError: A prompt does not fit the model.
            InvalidRequestError: A box is not inside the picture, or the checkpoint has not learnt box prompts.
            InferenceError: The network failed, also in the second attempt if there was one.
        """
        self._guard.check()
        loop = asyncio.get_running_loop()
        self.network.check_prompts([prompt for prompt in prompts if isinstance(prompt, str)])
        start = time.perf_counter()
        digest, picture, queue = await self._read(content, name, user_id)
        read_s = time.perf_counter() - start
        queries = tuple(one if isinstance(one, str) else self.network.query(one, picture.size) for one in prompts)
        job = Job(digest, picture, queries, loop, loop.create_future(), on_begin)
        queue = queue or self._choose(digest)
        queue.put(job)
        try:
            prediction = await job.future
        except asyncio.CancelledError:
            job.dropped = True
            raise
        start = time.perf_counter()
        timings = {"decode": read_s * 1000, "image": prediction.image_s * 1000, "prompt": prediction.prompt_s * 1000}
        make = partial(
            make_result,
            queue.network,
            picture.size,
            threshold=MIN_SCORE,
            timings=timings,
            photograph=prediction.photograph,
            image_id=f"file:{digest.hex()[:16]}",
        )
        results = await asyncio.gather(
            *(
                loop.run_in_executor(self._cpu, make, prompt if isinstance(prompt, str) else prompt.text, detections)
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

    async def warm(self, content: bytes) -> None:
        """Segment a picture with every network, so that the first requests do not wait for what is made only once."""
        loop = asyncio.get_running_loop()
        digest, picture, _ = await self._read(content, "the warm-up picture", "")
        jobs = [Job(digest, picture, ("object",), loop, loop.create_future(), lambda: None) for _ in self._queues]
        for queue, job in zip(self._queues, jobs, strict=True):
            queue.put(job)
        for prediction in await asyncio.gather(*(job.future for job in jobs)):
            for detections in prediction.detections:
                await loop.run_in_executor(self._cpu, detections.rles, picture.size)

    async def aclose(self) -> None:
        """Finish the batches that are in progress, then end the threads and the networks."""
        await asyncio.gather(*(queue.aclose() for queue in self._queues))

    def _choose(self, digest: bytes) -> NetworkQueue:
        """Choose the network for a picture: one that can compute, and best one that knows it."""
        return min(self._able(), key=lambda queue: (not queue.knows(digest), queue.load))

    def _able(self) -> Sequence[NetworkQueue]:
        return [queue for queue in self._queues if queue.network.problem is None] or self._queues

    async def _read(
        self, content: bytes, name: str, user_id: str
    ) -> tuple[bytes, ResizedImage | EncodedImage, NetworkQueue | None]:
        """Read a picture, unless it is encoded already: then it comes with the queue of the network that has it."""
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._cpu, lambda: hashlib.sha256(content).digest())
        for queue in self._able():
            if (cached := queue.cache.get(digest)) is not None:
                return digest, cached, queue
        reading = self._reading.get(digest)
        if reading is None:
            reading = asyncio.ensure_future(self._read_once(digest, content, name, user_id))
            # marks the exception as retrieved; callers that still wait get it from their own await
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._reading[digest] = reading
        return digest, await asyncio.shield(reading), None  # shared: one caller's cancellation must not stop it

    async def _read_once(self, digest: bytes, content: bytes, name: str, user_id: str) -> ResizedImage:
        loop = asyncio.get_running_loop()
        try:
            if self._decoding is not None:
                return await self.network.read_in(self._decoding, content, name=name, user_id=user_id)
            return await loop.run_in_executor(self._cpu, lambda: self.network.read(content, name=name))
        finally:
            del self._reading[digest]

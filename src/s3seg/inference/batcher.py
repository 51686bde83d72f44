"""Dynamic batching: requests that wait for the network at the same time share forward passes.

    read (processes)  ->  encode, predict (threads of the network)  ->  make results (CPU threads)

With several networks, one on each device, a picture goes to the one that knows it already, or else to the one with the
fewest waiting requests. Pictures are identified by the SHA-256 of their bytes, so that a repeated picture is neither
read nor encoded again, and a prompt that a batch asks of the same picture twice is decoded once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from s3seg.decoding import DecodingPool
from s3seg.errors import InvalidRequestError
from s3seg.inference.making_results import make_click_result, make_result, name_concept
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.inference.network import EncodedImage, Network, ResizedImage
from s3seg.inference.network_queue import Asked, Job, Limits, NetworkQueue, ReadConcept
from s3seg.inference.process_guard import ProcessGuard
from s3seg.inference.prompts import Box, BoxedPrompt, make_queries
from s3seg.inference.reading import PictureReader, RequestFile
from s3seg.inference.tile_plan import plan_tiles
from s3seg.inference.tile_requests import MAX_INSTANCES, detect_in_turns
from s3seg.inference.tiling import TilePieces
from s3seg.results.hints import Hint
from s3seg.results.instances_file import MIN_SCORE
from s3seg.results.segmentation import Segmentation
from s3seg.results.windows import Window
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.tiles import Tile


@dataclass(frozen=True, slots=True)
class ShownConcept:
    """Examples on pictures, to be found on another.

    Attributes:
        words: Words that are searched too, or None.
        examples: The bytes of each picture file, and boxes around what to find and what not to find on it.
    """

    words: str | None
    examples: Sequence[tuple[bytes, Sequence[Box], Sequence[Box]]]


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
        self._metrics = metrics or NoMetrics()
        self._limits = limits or Limits()
        self._queues = [
            NetworkQueue(one, limits=self._limits, metrics=self._metrics, threads=threads) for one in self.networks
        ]
        self._reader = PictureReader(self.network, cpu=cpu, decoding=decoding)
        self._guard = ProcessGuard("this Batcher")

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default, 0..1."""
        return self.network.threshold

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """What the checkpoint can be asked by: "words", and perhaps "boxes" and "clicks"."""
        return self.network.prompt_kinds

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
        objects: Sequence[Clicks] = (),
        concept: ShownConcept | None = None,
        tile: Tile | None = None,
        name: str,
        user_id: str = "",
        on_begin: Callable[[], None] = lambda: None,
    ) -> list[Segmentation]:
        """Segment a picture: for each prompt every instance above `s3seg.results.instances_file.MIN_SCORE`.

        If the caller is cancelled while the request waits for the network, the request is dropped.

        Args:
            content: The bytes of a picture file.
            prompts: What to look for, in words or with boxes that show it; with ``objects`` or a ``concept``, what
                the results call them.
            objects: Objects that are shown by clicks, instead of by words.
            concept: What is shown on other pictures, instead of words.
            tile: Look for words in tiles of the picture too; at most `MAX_INSTANCES` of each are kept.
            name: What error messages call the picture.
            user_id: Whose picture it is; decoding processes read one of a user at a time.
            on_begin: Called on the event loop when the network begins with the request.

        Returns:
            One result for each prompt, in order.

        Raises:
            ImageDecodeError: The picture cannot be read, or takes too long to decode.
            PromptError: A prompt does not fit the model.
            InvalidRequestError: A click or a box is outside its picture; the checkpoint has not learnt clicks or
                boxes; there would be too many tiles; or they are asked for with something else than words.
            InferenceError: The network failed, also in the second attempt if there was one.
        """
        self._guard.check()
        self._check(prompts, objects, concept, tile)
        start = time.perf_counter()
        file = await self._reader.identify(content, name=name, user_id=user_id)
        picture, queue = await self._read(file)
        read_s = time.perf_counter() - start
        for one in objects:
            one.require_inside(picture.size)
        tiles = () if tile is None else self._plan(picture.size, tile)
        queue = queue or self._choose(file.digest)
        asked: tuple[Asked, ...]
        if objects:
            asked = tuple(objects)
        elif concept is not None:
            asked = (await self._read_examples(concept, user_id, queue),)
        else:
            asked = tuple(one if isinstance(one, str) else self.network.query(one, picture.size) for one in prompts)
        (prediction,) = await queue.predict([Job(file.digest, picture, asked, on_begin)])
        start = time.perf_counter()
        words = partial(make_result, threshold=MIN_SCORE, photograph=prediction.photograph)
        make = partial(
            make_click_result if objects else words,
            queue.network,
            picture.size,
            timings={
                "decode": read_s * 1000,
                "image": prediction.image_s * 1000,
                "prompt": prediction.prompt_s * 1000,
            },
            image_id=f"file:{file.digest.hex()[:16]}",
        )
        searched = [prompt if isinstance(prompt, str) else prompt.text for prompt in prompts]
        if concept is not None:
            searched = [concept.words or ""]  # for the hints
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(
                loop.run_in_executor(self._cpu, make, prompt, detections)
                for prompt, detections in zip(searched, prediction.detections, strict=True)
            )
        )
        if concept is not None:
            results = [name_concept(queue.network, results[0], str(prompts[0]))]
        masks_s = time.perf_counter() - start
        if tiles:
            del prediction  # the masks of the whole picture, which would be in memory all the while
            pieces = await self._in_tiles(file, picture.size, [str(prompt) for prompt in prompts], tiles)
            start = time.perf_counter()
            results = await loop.run_in_executor(self._cpu, _joined, pieces, results, self.threshold)
            masks_s += time.perf_counter() - start
        for stage, seconds in (
            ("read", read_s),
            ("image", results[0].timings["image"] / 1000),
            ("prompt", sum(result.timings["prompt"] for result in results) / 1000),
            ("masks", masks_s),
        ):
            self._metrics.stage(stage, seconds)
        return list(results)

    def _check(
        self,
        prompts: Sequence[str | BoxedPrompt],
        objects: Sequence[Clicks],
        concept: ShownConcept | None,
        tile: Tile | None,
    ) -> None:
        """Refuse what the checkpoint cannot be asked, before the picture is read."""
        if tile is not None and not (all(isinstance(one, str) for one in prompts) and not objects and concept is None):
            raise InvalidRequestError("only words can be looked for in tiles: a tile does not show what boxes show")
        if objects:
            self.network.require_clicks()
        elif concept is not None:
            self.network.require_boxes()
            self.network.check_prompts([concept.words] if concept.words else [])
        else:
            self.network.check_prompts([prompt for prompt in prompts if isinstance(prompt, str)])

    def _plan(self, size: tuple[int, int], tile: Tile) -> Sequence[Window]:
        if not self._limits.tiles:
            raise InvalidRequestError("this service does not look into tiles; ask without tile")
        return plan_tiles(size, tile, input_side=self.network.input_side, max_tiles=self._limits.tiles)

    async def _in_tiles(
        self, file: RequestFile, size: tuple[int, int], prompts: Sequence[str], tiles: Sequence[Window]
    ) -> TilePieces:
        return await detect_in_turns(
            file.digest,
            size,
            prompts,
            tiles,
            read=partial(self._reader.read_tiles, file),
            input_side=self.network.input_side,
            choose=self._choose,
            limits=self._limits,
            cpu=self._cpu,
        )

    async def warm(self, content: bytes) -> None:
        """Segment a picture on every accelerator, so that the first requests do not wait for what is made only once.

        On a CPU a first picture takes as long as any other, at full size many seconds, so it is only read: this starts
        the process that reads pictures.
        """
        loop = asyncio.get_running_loop()
        file = await self._reader.identify(content, name="the warm-up picture", user_id="")
        picture, _ = await self._read(file)
        queues = [queue for queue in self._queues if queue.network.model.device != "cpu"]
        warming = (queue.predict([Job(file.digest, picture, ("object",))]) for queue in queues)
        for (prediction,) in await asyncio.gather(*warming):
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

    async def _read(self, file: RequestFile) -> tuple[ResizedImage | EncodedImage, NetworkQueue | None]:
        """Read a picture, unless it is encoded already: then it comes with the queue of the network that has it."""
        for queue in self._able():
            if (cached := queue.cache.get(file.digest)) is not None:
                return cached, queue
        return await self._reader.read(file), None

    async def _read_examples(self, concept: ShownConcept, user_id: str, queue: NetworkQueue) -> ReadConcept:
        """Read the pictures of a concept, unless the network that will use it has encoded them."""
        examples = []
        for content, boxes, negative_boxes in concept.examples:
            file = await self._reader.identify(content, name="the image of an example", user_id=user_id)
            picture = queue.cache.get(file.digest) or await self._reader.read(file)
            (query,) = make_queries([""], boxes, negative_boxes, size=picture.size)
            examples.append((file.digest, picture, query.boxes))
        return ReadConcept(concept.words, tuple(examples))


def _joined(pieces: TilePieces, whole: Sequence[Segmentation], threshold: float) -> list[Segmentation]:
    """Join what tiles show with what the whole picture shows, and say if that is not all."""
    results = pieces.results(whole, threshold=threshold)
    if not pieces.left_out:
        return results
    hint = Hint("other", f"only the {MAX_INSTANCES} best instances of each prompt were kept")
    return [replace(result, hints=(*result.hints, hint)) for result in results]

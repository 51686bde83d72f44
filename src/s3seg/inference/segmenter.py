"""`Segmenter`: say what you are looking for in a picture, get its masks."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from s3seg import checkpoints, images
from s3seg.checkpoints import Checkpoint
from s3seg.checkpoints.metadata import CheckpointMetadata
from s3seg.errors import InvalidRequestError, PromptError, S3segError
from s3seg.images import ImageSource, LoadedImage
from s3seg.results.segmentation import ModelInfo, Segmentation

if TYPE_CHECKING:
    from s3seg.sam3.model import ImageFeatures
    from s3seg.sam3.predictor import Found, Predictor, Query

S = TypeVar("S")
T = TypeVar("T")

Box = Sequence[float]
"""x1, y1, x2, y2 in pixels of the picture."""

_VISUAL = "visual"  # what the reference implementation says when a prompt has boxes and no words


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A picture that a `Segmenter` has encoded: prompts on it cost a fraction of the first one.

    Attributes:
        image: The picture.
        milliseconds: What it took, by stage: "decode" (reading and decoding the picture), "image" (encoding it).
            Of pictures that were encoded together each has its equal share.
        features: What the network knows of it.
        owner: Who encoded it, and alone can use it.
    """

    image: LoadedImage
    milliseconds: dict[str, float]
    features: ImageFeatures
    owner: Segmenter

    def __repr__(self) -> str:
        height, width = self.image.size
        return f"Embedding({self.image.source!r}, {width} x {height})"


class Segmenter:
    """SAM 3, loaded and ready. Safe to share between threads.

        seg = Segmenter()
        result = seg.segment("park.png", "tree")

    Attributes:
        checkpoint: Which weights these are, and where they lie.
        card: What the checkpoint says of itself: default threshold, vocabulary.
        model: Name, version, device and precision, as results tell them.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
    ) -> None:
        """Load a checkpoint.

        Args:
            checkpoint: "embedded", "sam3", a folder, a weights file, or a Hugging Face repo id that has been
                pulled; or a resolved `Checkpoint`. None takes ``S3SEG_CHECKPOINT`` if it is set, else full SAM 3 if
                it is on this machine, else the embedded one. The network is never asked.
            device: "auto" (CUDA, else Apple's MPS, else the CPU), or a name such as "cuda:1".
            dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 on CUDA, else float32.
            image_size: Side of the square that pictures are resized to, in pixels, a multiple of the patch size.
                None takes the checkpoint's own. Smaller is faster and sees less.

        Raises:
            CheckpointNotFoundError: It is not on this machine; the message says how to get it.
            CheckpointError: Its files are incomplete, or not a SAM 3.
            InvalidRequestError: The device or precision does not exist here, or the image size is none.
        """
        self.checkpoint: Checkpoint = (
            checkpoint if isinstance(checkpoint, Checkpoint) else checkpoints.resolve(checkpoint)
        )
        self.card = CheckpointMetadata.from_folder(self.checkpoint.folder)
        from s3seg.sam3.predictor import Predictor

        self._predictor = Predictor.from_path(self.checkpoint.path, device=device, dtype=dtype, image_size=image_size)
        self.model = ModelInfo(
            name=self.card.name or self.checkpoint.name,
            version=self.card.version or self.checkpoint.version,
            device=str(self._predictor.device),
            dtype=str(self._predictor.dtype).removeprefix("torch."),
            summary=self.card.summary,
        )

    def __repr__(self) -> str:
        model = self.model
        return f"Segmenter({model.name!r}, version={model.version!r}, device={model.device!r}, dtype={model.dtype!r})"

    @property
    def predictor(self) -> Predictor:
        """The network's own door, for those who arrange its steps themselves, as `s3seg.inference.stages` does."""
        return self._predictor

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return self._predictor.parameters

    @property
    def image_size(self) -> int:
        """Side of the square that pictures are resized to, in pixels."""
        return self._predictor.image_size

    def encode(self, image: ImageSource) -> Embedding:
        """Encode a picture once, for many calls of :meth:`segment`.

        Args:
            image: Anything that :func:`s3seg.images.load` takes.

        Raises:
            ImageDecodeError: The picture cannot be read.
        """
        return self._encode([_decode(image)])[0]

    @overload
    def segment(
        self,
        image: ImageSource | Embedding,
        prompt: str | None = None,
        *,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Segmentation: ...
    @overload
    def segment(
        self,
        image: ImageSource | Embedding,
        prompt: Sequence[str],
        *,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> list[Segmentation]: ...
    def segment(
        self,
        image: ImageSource | Embedding,
        prompt: str | Sequence[str] | None = None,
        *,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Find every instance of what the prompt says.

        Args:
            image: A picture (path, URL, bytes, PIL, numpy, torch) or an :class:`Embedding` of :meth:`encode`.
            prompt: What to look for, in a few words. Several prompts share the encoding of the picture. None, with
                boxes, looks for what the boxes show.
            boxes: "This one, and others like it": xyxy in pixels of the picture.
            negative_boxes: "Not this": likewise.
            threshold: Keep instances that score above this, 0..1; by default what the checkpoint recommends.
            max_instances: Keep at most so many, the best; None keeps all.

        Returns:
            One result for one prompt; for a sequence of prompts a list, in their order.

        Raises:
            ImageDecodeError: The picture cannot be read.
            PromptError: A prompt is empty, or too long for the model.
            InvalidRequestError: A box, the threshold or the number makes no sense.
            InferenceError: The network failed, as when memory runs out.
        """
        prompts = self._prompts(prompt, has_boxes=bool(len(boxes)))
        threshold = self._threshold(threshold, max_instances)
        embedding = image if isinstance(image, Embedding) else self.encode(image)
        if embedding.owner is not self:
            raise InvalidRequestError(f"{embedding!r} was encoded by another Segmenter; encode it with this one")
        results = self._find(embedding, prompts, boxes, negative_boxes, threshold, max_instances)
        return results[0] if prompt is None or isinstance(prompt, str) else results

    @overload
    def segment_many(  # pyright: ignore[reportOverlappingOverload] (a str is a sequence of str)
        self,
        sources: Iterable[S],
        prompt: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        batch_size: int | None = None,
        on_error: Callable[[S, S3segError], None] | None = None,
    ) -> Iterator[tuple[S, Segmentation]]: ...
    @overload
    def segment_many(
        self,
        sources: Iterable[S],
        prompt: Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        batch_size: int | None = None,
        on_error: Callable[[S, S3segError], None] | None = None,
    ) -> Iterator[tuple[S, list[Segmentation]]]: ...
    def segment_many(
        self,
        sources: Iterable[S],
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        batch_size: int | None = None,
        on_error: Callable[[S, S3segError], None] | None = None,
    ) -> Iterator[tuple[S, Any]]:
        """Segment many pictures, in order: pictures are decoded ahead, and encoded in batches.

        Memory holds a few batches, however many pictures there are.

        Args:
            sources: Pictures, as :meth:`segment` takes them; read as they are needed.
            prompt: What to look for in each, or several such.
            threshold: As for :meth:`segment`.
            max_instances: As for :meth:`segment`.
            batch_size: Pictures encoded together; by default 8 on an accelerator and 1 on the CPU, which gains
                nothing from more.
            on_error: Called with a picture that cannot be read or segmented, and why; the rest goes on. By default
                the first error is raised.

        Yields:
            A picture's source, and its result (a list of results, where several prompts were given).

        Raises:
            S3segError: As :meth:`segment` does.
        """
        if isinstance(sources, str | bytes | Path):
            raise InvalidRequestError(
                f"segment_many takes a list of pictures, got {sources!r:.80}; "
                "for one see segment, for a folder: Path(folder).glob('*.jpg')"
            )
        if batch_size is not None:
            _check_positive("batch_size", batch_size)
        prompts = self._prompts(prompt, has_boxes=False)
        threshold = self._threshold(threshold, max_instances)
        size = batch_size or (1 if self._predictor.device.type == "cpu" else 8)
        found = self._many(sources, prompts, threshold, max_instances, size, on_error)
        return ((source, results[0]) for source, results in found) if isinstance(prompt, str) else found

    def _many(
        self,
        sources: Iterable[S],
        prompts: Sequence[str],
        threshold: float,
        max_instances: int | None,
        batch_size: int,
        on_error: Callable[[S, S3segError], None] | None,
    ) -> Iterator[tuple[S, list[Segmentation]]]:
        for batch in _batches(_decode_ahead(sources, ahead=2 * batch_size), batch_size):
            for source, embedding in self._encode_batch(batch):
                try:
                    if isinstance(embedding, S3segError):
                        raise embedding
                    results = self._find(embedding, prompts, (), (), threshold, max_instances)
                except S3segError as err:
                    if on_error is None:
                        raise
                    on_error(source, err)
                else:
                    yield source, results

    def _encode_batch(
        self, batch: Sequence[tuple[S, _Decoded | S3segError]]
    ) -> Iterator[tuple[S, Embedding | S3segError]]:
        readable = [image for _, image in batch if isinstance(image, _Decoded)]
        encoded: Iterator[Embedding | S3segError]
        try:
            encoded = iter(self._encode(readable) if readable else [])
        except S3segError as err:
            encoded = itertools.repeat(err)
        for source, image in batch:
            yield source, next(encoded) if isinstance(image, _Decoded) else image

    def _encode(self, decoded: Sequence[_Decoded]) -> list[Embedding]:
        start = time.perf_counter()
        features = self._predictor.encode_images([one.image.pixels for one in decoded])
        each = _milliseconds_since(start) / len(decoded)
        return [
            Embedding(one.image, {"decode": one.milliseconds, "image": each}, encoded, self)
            for one, encoded in zip(decoded, features, strict=True)
        ]

    def _find(
        self,
        embedding: Embedding,
        prompts: Sequence[str],
        boxes: Sequence[Box],
        negative_boxes: Sequence[Box],
        threshold: float,
        max_instances: int | None,
    ) -> list[Segmentation]:
        queries = self._queries(prompts, boxes, negative_boxes, embedding.image.size)
        start = time.perf_counter()
        found = self._predictor.find(embedding.features, queries, threshold=threshold, most=max_instances)
        prompt_ms = _milliseconds_since(start) / len(prompts)
        return [
            self._result(embedding, prompt, one, threshold, prompt_ms)
            for prompt, one in zip(prompts, found, strict=True)
        ]

    def _result(
        self, embedding: Embedding, prompt: str, found: Found, threshold: float, prompt_ms: float
    ) -> Segmentation:
        start = time.perf_counter()
        height, width = size = embedding.image.size
        rles = found.rles(size)
        return Segmentation(
            prompt=prompt,
            size=size,
            rles=rles,
            boxes=found.boxes_xyxy * np.array([width, height, width, height], np.float32),
            scores=found.scores,
            presence=found.presence,
            threshold=threshold,
            model=self.model,
            timings=embedding.milliseconds | {"prompt": prompt_ms, "masks": _milliseconds_since(start)},
            hint=self.hint(prompt),
            source=embedding.image.source,
            image=embedding.image.pixels,
        )

    def hint(self, prompt: str) -> str | None:
        """A line for the user where a prompt has words that the checkpoint does not know; else None."""
        vocabulary = self.card.vocabulary
        if not prompt or vocabulary is None:  # boxes alone say it without words
            return None
        if not (unknown := vocabulary.unknown(prompt)):
            return None
        words = ", ".join(repr(word) for word in unknown)
        return (
            f"the {self.model.name} checkpoint does not know {words}; "
            "full SAM 3 may: Segmenter('sam3'), or --checkpoint sam3"
        )

    def _prompts(self, prompt: str | Sequence[str] | None, *, has_boxes: bool) -> list[str]:
        if prompt is None:
            if not has_boxes:
                raise PromptError("say what to look for, such as 'cat', or give boxes that show it")
            return [""]
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise PromptError("the list of prompts is empty; say what to look for, such as ['cat', 'dog']")
        for one in prompts:
            if not isinstance(one, str):
                raise PromptError(f"a prompt must be text, got {type(one).__name__}: {one!r:.60}")
            if not one.strip() and not has_boxes:
                raise PromptError("the prompt is empty; say what to look for, such as 'cat'")
        return [str(one) for one in prompts]  # a plain str, also of numpy's

    def _threshold(self, threshold: float | None, max_instances: int | None) -> float:
        threshold = self.card.threshold if threshold is None else threshold
        if not isinstance(threshold, Real) or not 0 <= threshold <= 1:
            raise InvalidRequestError(f"the threshold is a score between 0 and 1, got {threshold!r:.60}")
        if max_instances is not None:
            _check_positive("max_instances", max_instances)
        return float(threshold)

    def _queries(
        self,
        prompts: Sequence[str],
        boxes: Sequence[Box],
        negative_boxes: Sequence[Box],
        size: tuple[int, int],
    ) -> list[Query]:
        from s3seg.sam3.predictor import BoxPrompt, Query

        if (len(boxes) or len(negative_boxes)) and not self.card.box_prompts:
            raise InvalidRequestError(
                f"the {self.model.name} checkpoint has not learnt box prompts; use words, or another checkpoint"
            )
        shown = tuple(
            BoxPrompt(_normalised(box, size), positive)
            for positive, group in ((True, boxes), (False, negative_boxes))
            for box in group
        )
        return [Query(prompt if prompt.strip() else _VISUAL, shown) for prompt in prompts]


@dataclass(frozen=True, slots=True)
class _Decoded:
    image: LoadedImage
    milliseconds: float


def _decode(source: ImageSource) -> _Decoded:
    start = time.perf_counter()
    return _Decoded(images.load(source), _milliseconds_since(start))


def _decode_ahead(sources: Iterable[S], *, ahead: int) -> Iterator[tuple[S, _Decoded | S3segError]]:
    """Decode pictures on threads of their own, at most ``ahead`` before they are asked for."""

    def decode(source: S) -> _Decoded | S3segError:
        try:
            return _decode(source)
        except S3segError as err:
            return err

    pending: deque[tuple[S, Future[_Decoded | S3segError]]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(4, ahead), thread_name_prefix="s3seg-decode")
    try:
        for source in sources:
            pending.append((source, pool.submit(decode, source)))
            if len(pending) > ahead:
                first, image = pending.popleft()
                yield first, image.result()
        while pending:
            first, image = pending.popleft()
            yield first, image.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _normalised(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Pixels xyxy -> (cx, cy, w, h) of the part inside the picture, 0..1."""
    height, width = size
    try:
        corners = [float(side) for side in box]
    except (TypeError, ValueError):
        corners = []
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise InvalidRequestError(
            f"a box is four numbers, x1, y1, x2, y2 in pixels, and boxes=[...] a list of them; got {box!r:.80}"
        )
    x1, y1, x2, y2 = corners
    x1, x2 = max(x1, 0.0), min(x2, float(width))
    y1, y2 = max(y1, 0.0), min(y2, float(height))
    if x1 >= x2 or y1 >= y2:
        raise InvalidRequestError(
            f"the box {corners} holds nothing of a picture of {width} x {height} pixels; "
            "a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2"
        )
    return ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)


def _check_positive(name: str, number: object) -> None:
    if not isinstance(number, Integral) or number < 1:
        raise InvalidRequestError(f"{name} must be a whole number, 1 or more, got {number!r:.60}")


def _milliseconds_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000

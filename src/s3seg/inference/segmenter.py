"""`Segmenter`: segment pictures from text prompts, in a program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast, overload

import numpy as np

from s3seg import checkpoints, images
from s3seg.checkpoints import Checkpoint
from s3seg.errors import InvalidRequestError, S3segError
from s3seg.images import ImageSource, LoadedImage
from s3seg.inference.calibration import Calibration
from s3seg.inference.concepts import MAX_BOXES, MAX_EXAMPLES, Concept
from s3seg.inference.embedding import DecodedPicture, Embedding, PictureEncoder
from s3seg.inference.predicting import predict_clicks, predict_search
from s3seg.inference.prefetch import batches, map_ahead
from s3seg.inference.process_guard import refuse_copying
from s3seg.inference.prompts import Box, checked_positive, checked_prompts, make_queries
from s3seg.inference.refiner import Refiner
from s3seg.inference.search import Search, Threshold, thresholds_for
from s3seg.inference.stages import Sam3Network
from s3seg.results.hints import joined
from s3seg.results.masks import RLE
from s3seg.results.segmentation import Instance, Segmentation
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.prompts import normalize_prompt
from s3seg.tasks.tiles import Tile, checked_tile

if TYPE_CHECKING:
    from s3seg.sam3.predictor import Predictor

S = TypeVar("S")


class Segmenter:
    """SAM 3, loaded and ready. Safe to share between threads.

        seg = Segmenter()
        result = seg.segment("park.png", "tree")

    Attributes:
        checkpoint: The checkpoint that was loaded, and where its files are.
        metadata: What the checkpoint says about itself: default threshold, vocabulary, box prompts.
        model: Name, version, device and precision, as given in results.
        calibration: What ``threshold="calibrated"`` uses, or None.
        network: The steps from a picture to results, for callers that run them separately, as the services do.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
        calibration: str | os.PathLike[str] | Calibration | None = None,
        compile: bool | None = None,
    ) -> None:
        """Load a checkpoint. This never downloads anything.

        Args:
            checkpoint: "embedded", "litetext", "sam3", a folder, a weights file, or a Hugging Face repo id that has
                been pulled; or what `s3seg.checkpoints.resolve` returned for one. None takes ``S3SEG_CHECKPOINT`` if
                it is set, else the first that is on this machine: full SAM 3.1 or 3, "litetext", the embedded one.
            device: "auto" (CUDA, else Apple's MPS, else the CPU), or a name such as "cuda:1".
            dtype: "float32", "bfloat16", "float16", or "auto": ``S3SEG_DTYPE`` if it is set, else bfloat16 where it is
                fast (CUDA, and processors that multiply it in hardware), else float32.
            image_size: Side of the square that pictures are resized to, in pixels, a multiple of the patch size.
                None takes the checkpoint's own. A smaller size is faster and misses more.
            calibration: What ``threshold="calibrated"`` uses: a file of ``s3seg calibrate``.
            compile: True compiles the network with `torch.compile`, and on CUDA records it as CUDA graphs. Results are
                the same to rounding. The first start takes minutes; compiled code is kept for later ones. Needs a C++
                compiler on the CPU, and Triton on CUDA. None takes ``S3SEG_COMPILE`` (true or false) if it is set;
                otherwise CUDA graphs are recorded of the network as it is, each in a fraction of a second when its
                shapes are first seen. False turns both off.

        Raises:
            CheckpointNotFoundError: The checkpoint is not on this machine; the message says how to get it.
            CheckpointError: Its files are incomplete, or are not a SAM 3.
            InvalidRequestError: The device or precision is not available, or the image size is not supported; or the
                calibration is of another checkpoint.
            InferenceError: The network cannot be compiled on this machine.
        """
        if isinstance(calibration, str | os.PathLike):
            calibration = Calibration.load(calibration)
        self.calibration = calibration
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else checkpoints.resolve(checkpoint)
        self.network = Sam3Network(self.checkpoint, device=device, dtype=dtype, image_size=image_size, compile=compile)
        self.metadata = self.network.metadata
        self.model = self.network.model
        if self.calibration is not None:
            self.calibration.check(self.model.name, self.model.version)
        self._encoder = PictureEncoder(self.network)
        self._encoded_again: Embedding | None = None
        self._weights: str | None = None

    def __repr__(self) -> str:
        model = self.model
        return f"Segmenter({model.name!r}, version={model.version!r}, device={model.device!r}, dtype={model.dtype!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise refuse_copying("a Segmenter")

    @property
    def predictor(self) -> Predictor:
        """Direct access to the predictor, for callers that run the network themselves."""
        return self.network.predictor

    @property
    def parameters(self) -> int:
        """The number of weights of the network."""
        return self.predictor.parameters

    @property
    def image_size(self) -> int:
        """Side of the square that pictures are resized to, in pixels."""
        return self.predictor.image_size

    @property
    def batch_size(self) -> int:
        """How many pictures, or tiles of one, are encoded together unless a caller chooses."""
        return 1 if self.predictor.device.type == "cpu" else 8

    def hint(self, prompt: str) -> str | None:
        """Return a line for the user if the prompt lists several things, or has words unknown to the checkpoint."""
        return joined(self.network.hints(normalize_prompt(prompt)))

    def encode(self, image: ImageSource, *, bgr: bool = False) -> Embedding:
        """Encode a picture once, for many calls of :meth:`segment`.

        Args:
            image: Anything that :func:`s3seg.images.load` takes.
            bgr: The channels of an array are in BGR order, as OpenCV reads them.

        Raises:
            ImageDecodeError: The picture cannot be read.
            InferenceError: The network failed, for example because memory ran out; or this is a forked child of the
                process that loaded it.
        """
        self.network.check_process()
        return self._encoder.encode([self._encoder.decode(image, bgr=bgr)])[0]

    @overload
    def segment(
        self,
        image: ImageSource | Embedding,
        prompt: str | Concept | None = None,
        *,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        threshold: Threshold = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        bgr: bool = False,
    ) -> Segmentation: ...
    @overload
    def segment(
        self,
        image: ImageSource | Embedding,
        prompt: Sequence[str],
        *,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        threshold: Threshold = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        bgr: bool = False,
    ) -> list[Segmentation]: ...
    def segment(
        self,
        image: ImageSource | Embedding,
        prompt: str | Concept | Sequence[str] | None = None,
        *,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        threshold: Threshold = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        bgr: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """Segment every instance of what the prompt describes.

        Args:
            image: A picture (path, URL, bytes, PIL, numpy, torch, or a pair of a name and one of these), or an
                :class:`Embedding` of :meth:`encode`.
            prompt: What to look for, one thing in a few words, or a list of prompts, which share the encoding of the
                picture. White space, zero-width marks and smart quotes are normalized. None, together with boxes, looks
                for what is in the boxes. Or a concept of :meth:`concept`.
            boxes: Examples of what to find, xyxy in pixels of the picture.
            negative_boxes: Examples of what not to find, xyxy in pixels.
            threshold: Keep instances that score above this, 0..1; by default the checkpoint's threshold. A mapping
                gives prompts thresholds of their own; "calibrated" takes those of ``calibration``.
            max_instances: Keep at most this many for each prompt, the best; None keeps all.
            tile: Look also into overlapping tiles of the picture, for things that are too small or too many for one
                pass: the side of a tile in pixels, or "auto" for that of the network's input, which is right for the
                smallest things. Each tile takes the time of a picture. Not together with boxes.
            bgr: The channels of an array are in BGR order, as OpenCV reads them.

        Returns:
            One result for one prompt; for a sequence of prompts a list of results, one for each in the same order (the
            same object for duplicates).

        Raises:
            ImageDecodeError: The picture cannot be read.
            PromptError: A prompt is empty, not text, or too long for the model.
            InvalidRequestError: A box, the threshold or the number is out of range; the checkpoint was not trained on
                boxes; or the concept was made by other weights.
            InferenceError: The network failed, for example because memory ran out; or this is a forked child of the
                process that loaded it.
        """
        self.network.check_process()
        boxes, negative_boxes = (() if group is None else group for group in (boxes, negative_boxes))
        if len(boxes) or len(negative_boxes):
            self.network.require_boxes()
        concept = prompt if isinstance(prompt, Concept) else None
        if concept is not None:
            self.require_own(concept)
            prompts = [concept.words or ""]
        else:
            prompts = checked_prompts(cast("str | Sequence[str] | None", prompt), has_boxes=bool(len(boxes)))
        search = self._search(prompts, threshold, max_instances, tile, boxes, negative_boxes, concept)
        embedding = self._embedding(image, bgr=bgr)
        results = self._predict(embedding, search, self.batch_size)
        return results[0] if prompt is None or isinstance(prompt, str | Concept) else results

    def require_own(self, concept: Concept) -> None:
        """Raise InvalidRequestError if other weights made the concept, or the checkpoint has not learnt boxes."""
        self.network.require_boxes()
        concept.require_made_by(self._fingerprint(), self._described())
        width = self.predictor.model.config.channels
        if concept.tokens.shape[1:] != (width,):  # a file that was made by hand
            raise InvalidRequestError(f"the concept has tokens of {concept.tokens.shape[-1]} numbers, not {width}")

    def concept(
        self,
        words: str | None,
        examples: Sequence[tuple[ImageSource | Embedding, Sequence[Box], Sequence[Box]]],
        *,
        name: str | None = None,
    ) -> Concept:
        """Make a concept of what boxes show on some pictures, to be found on others with :meth:`segment`.

        Whether a checkpoint finds things by examples on other pictures depends on its training: the documentation says
        what was measured for the embedded one.

        Args:
            words: What it is called, if that is to be searched too; None searches by the examples alone.
            examples: For each picture, the picture, boxes around examples of what to find, and boxes around what not
                to find; xyxy in pixels. Up to 16 pictures with 64 boxes on all of them.
            name: What results call it; by default the words.

        Raises:
            ImageDecodeError: A picture cannot be read.
            PromptError: The words are empty, not text, or too long for the model.
            InvalidRequestError: A box is malformed or outside its picture; there are no examples or too many; or the
                checkpoint has not learnt box prompts.
            InferenceError: The network failed.
        """
        self.network.check_process()
        self.network.require_boxes()
        if words is not None:
            (words,) = checked_prompts([words], has_boxes=False)
            self.network.check_prompts([words])
        boxes = sum(len(positive) + len(negative) for _, positive, negative in examples)
        if not 1 <= len(examples) <= MAX_EXAMPLES or boxes > MAX_BOXES:
            raise InvalidRequestError(
                f"a concept has examples on 1 to {MAX_EXAMPLES} pictures, with at most {MAX_BOXES} boxes; "
                f"got {len(examples)} pictures with {boxes} boxes"
            )
        tokens = []
        for image, positive, negative in examples:
            if not len(positive):
                raise InvalidRequestError("every picture of a concept needs a box around an example of what to find")
            encoded = self._embedding(image).encoded
            (query,) = make_queries([""], positive, negative, size=encoded.size)
            tokens.append(self.predictor.encode_examples(encoded.features, query.boxes))
        return Concept(
            name=name or words or "concept",
            words=words,
            tokens=np.concatenate(tokens),
            examples=len(examples),
            boxes=boxes,
            fingerprint=self._fingerprint(),
            model=self._described(),
        )

    def click(
        self,
        image: ImageSource | Embedding,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] | None = None,
        *,
        box: Box | None = None,
        mask: np.ndarray | RLE | Instance | None = None,
        alternatives: bool = False,
    ) -> Segmentation:
        """Segment the one object that points, a box, or both show; the checkpoint must have a click head.

        Args:
            image: A picture (path, URL, bytes, PIL, numpy, torch) or an :class:`Embedding`, with which a further click
                takes a fraction of the time.
            points: (x, y) in pixels of the picture, up to 64.
            labels: For each point 1 if it is on the object, 0 if it is on what does not belong to it; None if all are
                on it.
            box: (x1, y1, x2, y2) around the object, in pixels.
            mask: A mask of the object to correct, of the size of the picture; see also :meth:`Segmentation.refine`.
            alternatives: Return several masks to choose from, three with SAM 3, the best first: a single point may
                mean a thing, a part of it, or what it belongs to.

        Returns:
            A result with one instance (or the alternatives) and an empty prompt. Scores are the predicted IoU of mask
            and object; ``presence`` is the probability that there is an object.

        Raises:
            ImageDecodeError: The picture cannot be read.
            InvalidRequestError: A point or the box is malformed or outside the picture; the mask has another size; or
                the checkpoint has no click head.
            InferenceError: The network failed, for example because memory ran out.
        """
        clicks = Clicks(points, labels, box)
        return self._click(image, [clicks], mask=mask, alternatives=alternatives)[0]

    def click_many(self, image: ImageSource | Embedding, objects: Sequence[Clicks]) -> list[Segmentation]:
        """Segment several objects of one picture, each from its own points and box, in shared forward passes.

        Args:
            image: As for :meth:`click`.
            objects: What shows each object.

        Returns:
            One result for each object, in order, as :meth:`click` returns it.

        Raises:
            S3segError: The same errors as :meth:`click`.
        """
        for one in objects:
            if not isinstance(one, Clicks):
                raise InvalidRequestError(
                    f"every object must be a Clicks, such as Clicks([(120, 80)]); got {one!r:.60}"
                )
        return self._click(image, objects) if objects else []

    def encode_again(self, pixels: np.ndarray, image_id: str | None) -> Embedding:
        """Encode the picture of a result whose `Embedding` is gone; the last picture is kept for further calls."""
        known = self._encoded_again
        if known is None or image_id is None or known.image_id != image_id:
            known = self._encoded_again = replace(self.encode(images.of_result(pixels)), image_id=image_id or "")
        return known

    @overload
    def segment_many(  # pyright: ignore[reportOverlappingOverload] (a str is a sequence of str)
        self,
        sources: Iterable[S],
        prompt: str,
        *,
        threshold: Threshold = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        batch_size: int | None = None,
        bgr: bool = False,
        on_error: Callable[[S, S3segError], None] | None = None,
    ) -> Iterator[tuple[S, Segmentation]]: ...
    @overload
    def segment_many(
        self,
        sources: Iterable[S],
        prompt: Sequence[str],
        *,
        threshold: Threshold = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        batch_size: int | None = None,
        bgr: bool = False,
        on_error: Callable[[S, S3segError], None] | None = None,
    ) -> Iterator[tuple[S, list[Segmentation]]]: ...
    def segment_many(
        self,
        sources: Iterable[S],
        prompt: str | Sequence[str],
        *,
        threshold: Threshold = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        batch_size: int | None = None,
        bgr: bool = False,
        on_error: Callable[[S, S3segError], None] | None = None,
    ) -> Iterator[tuple[S, Any]]:
        """Segment many pictures, in order. Pictures are decoded ahead on other threads, and encoded in batches.

        Only a few batches are in memory at a time, however many pictures there are.

        Args:
            sources: Pictures, as :meth:`segment` takes them; read when they are needed.
            prompt: What to look for in each picture: one prompt or several.
            threshold: Keep instances that score above this; see :meth:`segment`.
            max_instances: Keep at most this many for each prompt; see :meth:`segment`.
            tile: Look into tiles too; see :meth:`segment`.
            batch_size: Pictures, or tiles of one, to encode together; by default 8 on an accelerator and 1 on the CPU,
                where larger batches are not faster.
            bgr: The channels of arrays are in BGR order; see :meth:`segment`.
            on_error: Called with each picture that cannot be read or segmented, and its error; the others are still
                segmented. By default the first error is raised.

        Yields:
            Each picture's source, and its result (a list of results if several prompts were given).

        Raises:
            S3segError: The same errors as :meth:`segment`.
        """
        if _is_one_picture(sources):
            one = f"{sources!r:.80}" if isinstance(sources, str | os.PathLike) else f"one ({type(sources).__name__})"
            raise InvalidRequestError(
                f"segment_many takes a list of pictures, got {one}; "
                "for one picture use segment, for a folder Path(folder).glob('*.jpg')"
            )
        self.network.check_process()
        if batch_size is not None:
            batch_size = checked_positive("batch_size", batch_size)
        prompts = checked_prompts(prompt, has_boxes=False)
        search = self._search(prompts, threshold, max_instances, tile)
        size = batch_size or self.batch_size
        decode = partial(self._encoder.decode_or_error, bgr=bgr)
        pairs = self._segment_batches(sources, decode, search, size, on_error)
        return ((source, results[0]) for source, results in pairs) if isinstance(prompt, str) else pairs

    def _segment_batches(
        self,
        sources: Iterable[S],
        decode: Callable[[S], DecodedPicture | S3segError],
        search: Search,
        batch_size: int,
        on_error: Callable[[S, S3segError], None] | None,
    ) -> Iterator[tuple[S, list[Segmentation]]]:
        kept = isinstance(sources, list | tuple)  # what is iterated over may fill the same object again
        may_change = (lambda _: False) if kept else images.may_change
        ahead = map_ahead(decode, sources, ahead=2 * batch_size, may_change=may_change)
        with contextlib.closing(ahead) as decoded:
            for source, embedding in self._encoder.encode_batches(batches(decoded, batch_size)):
                try:
                    if isinstance(embedding, S3segError):
                        raise embedding
                    results = self._predict(embedding, search, batch_size)
                except S3segError as err:
                    if on_error is None:
                        raise
                    on_error(source, err)
                else:
                    yield source, results

    def _embedding(self, image: ImageSource | Embedding, *, bgr: bool = False) -> Embedding:
        embedding = image if isinstance(image, Embedding) else self.encode(image, bgr=bgr)
        if embedding.owner is not self.network:
            raise InvalidRequestError(f"{embedding!r} was encoded by another Segmenter; encode it with this one")
        return embedding

    def _click(
        self,
        image: ImageSource | Embedding,
        objects: Sequence[Clicks],
        *,
        mask: np.ndarray | RLE | Instance | None = None,
        alternatives: bool = False,
    ) -> list[Segmentation]:
        self.network.check_process()
        self.network.require_clicks()
        embedding = self._embedding(image)
        return predict_clicks(
            self.network,
            embedding,
            objects,
            mask=mask,
            alternatives=alternatives,
            refiner=Refiner(self, embedding),
        )

    def _predict(self, embedding: Embedding, search: Search, batch_size: int) -> list[Segmentation]:
        refiner = Refiner(self, embedding)
        return predict_search(self.network, embedding, search, batch_size=batch_size, refiner=refiner)

    def _fingerprint(self) -> str:
        if self._weights is None:
            self._weights = self.predictor.fingerprint()
        return self._weights

    def _described(self) -> str:
        return f"{self.model.name} {self.model.version}"

    def _search(
        self,
        prompts: Sequence[str],
        threshold: Threshold,
        max_instances: int | None,
        tile: Tile | None,
        boxes: Sequence[Box] = (),
        negative_boxes: Sequence[Box] = (),
        concept: Concept | None = None,
    ) -> Search:
        if max_instances is not None:
            max_instances = checked_positive("max_instances", max_instances)
        tile = checked_tile(tile)
        thresholds = thresholds_for(
            threshold, prompts, default=self.metadata.threshold, calibration=self.calibration, tile=tile
        )
        return Search(thresholds, prompts, max_instances, boxes, negative_boxes, tile, concept)


def _is_one_picture(sources: object) -> bool:
    """Return whether this is a picture rather than an iterable of pictures; an array has one axis more for several."""
    if isinstance(sources, str | bytes | bytearray | memoryview | os.PathLike | LoadedImage | Embedding):
        return True
    if images.is_named(sources) and not isinstance(cast("tuple[Any, Any]", sources)[1], os.PathLike):
        return True
    if hasattr(sources, "read") or hasattr(sources, "getbands"):  # a file object, a PIL picture
        return True
    return hasattr(sources, "dtype") and getattr(sources, "ndim", None) in (2, 3)

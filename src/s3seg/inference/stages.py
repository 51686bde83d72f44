"""The steps from a picture to its results: read, encode, predict, make the result.

`Segmenter` runs them one after another. A service runs each where it belongs: reading pictures and making results on
CPU threads, encoding and predicting on the one thread that owns the accelerator, for all requests that wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from s3seg import images
from s3seg.checkpoints import Checkpoint
from s3seg.checkpoints.metadata import CheckpointMetadata
from s3seg.checkpoints.read_ahead import read_ahead
from s3seg.decoding import DecodingPool
from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.images import LoadedImage
from s3seg.images.photographs import looks_like_photograph
from s3seg.inference.hints import hints_for
from s3seg.inference.process_guard import ProcessGuard, refuse_copying
from s3seg.inference.prompts import BoxedPrompt, make_click_queries, make_queries
from s3seg.inference.quick_imports import collector_paused
from s3seg.results import masks
from s3seg.results.hints import Hint
from s3seg.results.instances_file import MIN_SCORE
from s3seg.results.segmentation import ModelInfo, Segmentation
from s3seg.tasks.clicks import Clicks

if TYPE_CHECKING:
    from s3seg.inference.accelerator.process import PredictorProcess
    from s3seg.sam3.click_predictor import ClickedMasks, ClickQuery
    from s3seg.sam3.device import DeviceStatus
    from s3seg.sam3.predictor import BoxPrompt, Detections, Query

MAX_PIXELS = 100_000_000
"""The largest picture that a service reads: 100 megapixels. Masks are made at the size of the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class ResizedImage:
    """A picture that was read and resized to the input of the network.

    Attributes:
        pixels: uint8 (1, 3, side, side), a tensor on the CPU.
        size: (height, width) of the picture before resizing.
    """

    pixels: Any
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A picture that the network has encoded, ready for any number of prompts.

    Attributes:
        features: The network's features, on its device.
        size: (height, width) of the picture.
        nbytes: Memory that the features take on the device.
        photograph: Whether it looks like a photograph, if the checkpoint knows drawings only; otherwise False.
    """

    features: Any
    size: tuple[int, int]
    nbytes: int
    photograph: bool = False


class Network(Protocol):
    """What the services need of a network. `Sam3Network` is the implementation; benchmarks and tests have others."""

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default, 0..1."""
        ...

    @property
    def model(self) -> ModelInfo:
        """Name, version, device and precision, as given in results."""
        ...

    @property
    def parameters(self) -> int:
        """The number of weights."""
        ...

    @property
    def weights_bytes(self) -> int:
        """The size of the weights in memory."""
        ...

    @property
    def problem(self) -> str | None:
        """Why it cannot compute at the moment, such as a restart of its process; None if it can."""
        ...

    def device_status(self) -> DeviceStatus:
        """Ask the device for its name and memory. May be called from any thread."""
        ...

    def read(self, content: bytes, *, name: str) -> ResizedImage:
        """Decode an encoded picture and resize it. May be called from any thread.

        Args:
            content: The bytes of a picture file.
            name: What error messages call the picture.

        Raises:
            ImageDecodeError: The picture cannot be read, or is too large.
        """
        ...

    async def read_in(self, pool: DecodingPool, content: bytes, *, name: str, user_id: str) -> ResizedImage:
        """Do what `read` does in a process of a pool that runs `s3seg.inference.decoding.read_resized`.

        Args:
            pool: The decoding processes.
            content: The bytes of a picture file.
            name: What error messages call the picture.
            user_id: Whose picture it is.

        Raises:
            ImageDecodeError: The picture cannot be read, or takes too long or too much memory.
            UnavailableError: The process was killed, or did not start.
        """
        ...

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Check that every prompt fits the model. Fast; may be called from any thread.

        Raises:
            PromptError: A prompt is empty, or has too many tokens; the message says how many.
        """
        ...

    def query(self, prompt: BoxedPrompt, size: tuple[int, int]) -> Query:
        """Turn a prompt with boxes into a query. Fast; may be called from any thread.

        Args:
            prompt: The prompt.
            size: (height, width) of the picture.

        Raises:
            PromptError: Its text does not fit the model.
            InvalidRequestError: The checkpoint has not learnt box prompts, or a box is not inside the picture.
        """
        ...

    def hints(self, prompt: str, *, photograph: bool = False) -> tuple[Hint, ...]:
        """Return what the user should know about a prompt on a picture.

        Args:
            prompt: The prompt; empty with boxes only.
            photograph: `EncodedImage.photograph` of the picture.
        """
        ...

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        """Encode pictures in one forward pass. Call it from the accelerator's thread.

        Raises:
            OutOfMemoryError: The batch does not fit into the device's memory.
            InferenceError: The network failed.
        """
        ...

    def predict(self, pairs: Sequence[tuple[EncodedImage, str | Query]]) -> list[Detections]:
        """Predict each prompt's instances above `MIN_SCORE`, all pairs together. Call it from the accelerator's thread.

        Args:
            pairs: A picture, and a text prompt or what `query` returned.

        Raises:
            OutOfMemoryError: The batch does not fit into the device's memory.
            InferenceError: The network failed.
        """
        ...

    def require_clicks(self) -> None:
        """Raise InvalidRequestError if the checkpoint has no click head. May be called from any thread."""
        ...

    def click(self, image: EncodedImage, objects: Sequence[Clicks]) -> list[ClickedMasks]:
        """Predict a mask for each object in a picture. Call it from the accelerator's thread.

        Raises:
            InvalidRequestError: A point or a box is outside the picture.
            OutOfMemoryError: The objects do not fit into the device's memory.
            InferenceError: The network failed.
        """
        ...

    @property
    def concept_hint(self) -> str:
        """A line for users of concepts: how well the checkpoint finds on one picture what is shown on others."""
        ...

    def require_boxes(self) -> None:
        """Raise InvalidRequestError if the checkpoint has not learnt box prompts. May be called from any thread."""
        ...

    def predict_concept(
        self, image: EncodedImage, words: str | None, examples: Sequence[tuple[EncodedImage, Sequence[BoxPrompt]]]
    ) -> Detections:
        """Predict the instances of what boxes show on other pictures, above `MIN_SCORE`.

        Call it from the accelerator's thread.

        Raises:
            OutOfMemoryError: It does not fit into the device's memory.
            InferenceError: The network failed.
        """
        ...

    def free(self) -> None:
        """Release device memory that is only held in reserve. Call it from the accelerator's thread."""
        ...

    def close(self) -> None:
        """End what it has started, such as a process. It is not used any more."""
        ...


class Sam3Network:
    """A SAM 3 checkpoint as a `Network`. Safe to share between threads.

    Attributes:
        predictor: Direct access to the network, for callers that run it themselves.
        metadata: What the checkpoint says about itself.
        model: Name, version, device and precision, as given in results.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        compile: bool | None = None,
        predictor: PredictorProcess | None = None,
    ) -> None:
        """Load a checkpoint.

        Args:
            checkpoint: As `s3seg.checkpoints.resolve` returns it.
            device: "auto" (CUDA, else Apple's MPS, else the CPU), or a name such as "cuda:1".
            dtype: "float32", "bfloat16", "float16", or "auto": ``S3SEG_DTYPE`` if it is set, else bfloat16 where it is
                fast (CUDA, and processors that multiply it in hardware), else float32.
            image_size: Side of the network's input in pixels; None takes the checkpoint's own.
            max_pixels: `read` refuses pictures with more pixels.
            compile: True compiles the network; None records it on CUDA, unless ``S3SEG_COMPILE`` says otherwise; False
                does neither. See `s3seg.sam3.compiled`.
            predictor: Computes in a process of its own, instead of a predictor that is loaded here. It has been loaded
                from the same checkpoint.

        Raises:
            CheckpointError: The files are incomplete, or are not a SAM 3.
            InvalidRequestError: The device, precision or image size is not supported here.
            InferenceError: The network cannot be compiled here.
        """
        if predictor is None:
            read_ahead(checkpoint.files)  # while PyTorch is imported
        self.metadata = CheckpointMetadata.from_folder(checkpoint.folder)
        with collector_paused():
            from s3seg.sam3.predictor import Predictor

        self.predictor: Any = predictor or Predictor.from_path(
            checkpoint.path, device=device, dtype=dtype, image_size=image_size, compile=compile
        )
        self.model = ModelInfo(
            name=self.metadata.name or checkpoint.name,
            version=self.metadata.version or checkpoint.version,
            device=str(self.predictor.device),
            dtype=str(self.predictor.dtype).removeprefix("torch."),
            summary=self.metadata.summary,
        )
        self._max_pixels = max_pixels
        self._guard = ProcessGuard(f"the network of {self.model.name!r}")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise refuse_copying(f"the network of {self.model.name!r}")

    def check_process(self) -> None:
        """Raise InferenceError if this is a forked child of the process that loaded the network."""
        self._guard.check()

    @property
    def threshold(self) -> float:
        """The threshold that the checkpoint recommends, 0..1."""
        return self.metadata.threshold

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return self.predictor.parameters

    @property
    def weights_bytes(self) -> int:
        """The size of the weights in the device's memory."""
        return self.predictor.weights_bytes

    @property
    def problem(self) -> str | None:
        """Why it cannot compute at the moment; None if it can."""
        return self.predictor.problem

    def device_status(self) -> DeviceStatus:
        """Return the name and memory of the device; of another process, those that it sent last."""
        from s3seg.sam3.device import DeviceStatus

        return self.predictor.device_status() or DeviceStatus(gpu=False)

    def read(self, content: bytes, *, name: str) -> ResizedImage:
        """Decode an encoded picture and resize it; a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size."""
        side = self.predictor.image_size
        picture = images.load(content, name=name, max_pixels=self._max_pixels, reduce_to=side)
        return self.resize(picture.pixels, picture.full_size)

    async def read_in(self, pool: DecodingPool, content: bytes, *, name: str, user_id: str) -> ResizedImage:
        """Do what `read` does in a process of a pool that runs `s3seg.inference.decoding.read_resized`."""
        from s3seg.sam3.predictor import resized_from_bytes

        side, memory = self.predictor.image_size, pool.options.memory
        fields, pixels = await pool.run(
            content, user_id=user_id, name=name, side=side, max_pixels=self._max_pixels, max_memory=memory
        )
        height, width = (int(length) for length in fields["size"])
        if len(pixels) != 3 * side * side or not 0 < height * width <= self._max_pixels:
            raise ImageDecodeError(f"{name}: cannot be read")  # the process may have been taken over
        return ResizedImage(resized_from_bytes(pixels, side), (height, width))

    def resize(self, pixels: np.ndarray, size: tuple[int, int]) -> ResizedImage:
        """Resize a picture to the input of the network, on the CPU.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            size: (height, width) of the masks to be made.
        """
        self.check_process()
        return ResizedImage(self.predictor.resize(pixels), size)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise PromptError if a prompt is empty or has too many tokens."""
        for prompt in prompts:
            self.predictor.tokenizer(prompt)

    def hints(self, prompt: str, *, photograph: bool = False) -> tuple[Hint, ...]:
        """Return hints if the picture or the prompt is of a kind that the checkpoint does not know, or is a list."""
        return hints_for(prompt, self.metadata, name=self.model.name, photograph=photograph)

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        """Encode pictures in one forward pass."""
        self.check_process()
        encoded = self.predictor.encode_resized([picture.pixels for picture in pictures])
        return [
            EncodedImage(
                features,
                picture.size,
                self.predictor.encoded_bytes(features),
                photograph=self._is_foreign_photograph(picture),
            )
            for picture, features in zip(pictures, encoded, strict=True)
        ]

    def query(self, prompt: BoxedPrompt, size: tuple[int, int]) -> Query:
        """Turn a prompt with boxes into a query."""
        self.require_boxes()
        (query,) = make_queries([prompt.text], prompt.boxes, prompt.negative_boxes, size=size)
        self.check_prompts([query.text])
        return query

    def require_boxes(self) -> None:
        """Raise InvalidRequestError if the checkpoint has not learnt box prompts."""
        if not self.metadata.box_prompts:
            raise InvalidRequestError(
                f"the {self.model.name} checkpoint was not trained on boxes; use a text prompt, or another checkpoint"
            )

    def _is_foreign_photograph(self, picture: ResizedImage) -> bool:
        if not self.metadata.drawings_only:
            return False
        return looks_like_photograph(picture.pixels[0].permute(1, 2, 0).numpy())

    def predict(self, pairs: Sequence[tuple[EncodedImage, str | Query]]) -> list[Detections]:
        """Predict each prompt's instances above `MIN_SCORE` in its picture."""
        from s3seg.sam3.predictor import Query

        queries = [(image, Query(prompt) if isinstance(prompt, str) else prompt) for image, prompt in pairs]
        return self.predict_queries(queries, threshold=MIN_SCORE)

    def predict_queries(
        self, pairs: Sequence[tuple[EncodedImage, Query]], *, threshold: float, max_instances: int | None = None
    ) -> list[Detections]:
        """Predict the instances of queries, which may have boxes, each in its picture.

        Args:
            pairs: A picture and a query each; all share forward passes.
            threshold: Keep instances that score above this, 0..1.
            max_instances: Keep at most this many for each query, the best; None keeps all.

        Returns:
            Detections, one for each pair. Their logits may still be on the way to the host's memory.
        """
        self.check_process()
        return self.predictor.predict_pairs(
            [(image.features, query) for image, query in pairs], threshold=threshold, max_instances=max_instances
        )

    def require_clicks(self) -> None:
        """Raise InvalidRequestError if the checkpoint has no click head."""
        if not self.predictor.has_clicks:
            raise InvalidRequestError(
                f"the {self.model.name} checkpoint has no head for clicks: it finds things by words or by boxes around "
                "examples; for clicks use full SAM 3 or 3.1: Segmenter('sam3'), or --checkpoint sam3"
            )

    def click(self, image: EncodedImage, objects: Sequence[Clicks]) -> list[ClickedMasks]:
        """Predict a mask for each object in a picture."""
        return self.click_queries(image, make_click_queries(objects, size=image.size))

    def click_queries(
        self, image: EncodedImage, queries: Sequence[ClickQuery], *, alternatives: bool = False
    ) -> list[ClickedMasks]:
        """Predict the masks of objects, which may start from a mask; see `ClickPredictor.predict`.

        Returns:
            Masks in the CPU's memory, one result for each object.
        """
        self.check_process()
        self.require_clicks()
        return self.predictor.click(image.features, queries, alternatives=alternatives)

    @property
    def concept_hint(self) -> str:
        """A line for users of concepts: how well the checkpoint finds on one picture what is shown on others."""
        return self.metadata.concept_hint

    def predict_concept(
        self, image: EncodedImage, words: str | None, examples: Sequence[tuple[EncodedImage, Sequence[BoxPrompt]]]
    ) -> Detections:
        """Predict the instances of what boxes show on other pictures, above `MIN_SCORE`."""
        tokens = [self.predictor.encode_examples(example.features, boxes) for example, boxes in examples]
        (query,) = make_queries([words or ""], (), (), size=image.size)
        query = replace(query, examples=np.concatenate(tokens))
        return self.predict_queries([(image, query)], threshold=MIN_SCORE)[0]

    def free(self) -> None:
        """Release device memory that PyTorch's allocator holds in reserve."""
        self.predictor.free_cached_memory()

    def close(self) -> None:
        """End the process of the predictor, if it has one."""
        self.predictor.close()


def make_result(
    network: Network,
    size: tuple[int, int],
    prompt: str,
    detections: Detections,
    *,
    threshold: float,
    timings: Mapping[str, float],
    photograph: bool = False,
    picture: LoadedImage | None = None,
    image_id: str | None = None,
) -> Segmentation:
    """Turn the detections of one prompt into a result. CPU work; may run on any thread.

    Args:
        network: The network that predicted them.
        size: (height, width) of the picture; masks are made at this size.
        prompt: The prompt.
        detections: What the network predicted; if their logits are still being copied, this waits for them.
        threshold: The threshold that was applied to them.
        timings: Milliseconds of the steps before; the time for the masks is added as "masks".
        photograph: `EncodedImage.photograph` of the picture.
        picture: To be kept in the result, with its source.
        image_id: Identifies the picture; see `Segmentation`.
    """
    start = time.perf_counter()
    height, width = size
    rles = detections.rles(size)
    return Segmentation(
        prompt=prompt,
        size=size,
        rles=rles,
        boxes=detections.boxes_xyxy * np.array([width, height, width, height], np.float32),
        scores=detections.scores,
        presence=detections.presence,
        threshold=threshold,
        model=network.model,
        timings={**timings, "masks": (time.perf_counter() - start) * 1000},
        notes=() if picture is None else picture.notes,
        hints=network.hints(prompt, photograph=photograph),
        source=None if picture is None else picture.source,
        image=None if picture is None else picture.pixels,
        image_id=image_id,
    )


def make_click_result(
    network: Network,
    size: tuple[int, int],
    prompt: str,
    found: ClickedMasks,
    *,
    timings: Mapping[str, float],
    picture: LoadedImage | None = None,
    image_id: str | None = None,
) -> Segmentation:
    """Turn the masks of one object into a result, as `make_result` does. Scores are predicted IoUs.

    Args:
        network: The network that predicted them.
        size: (height, width) of the picture; masks are made at this size.
        prompt: What the result calls the object.
        found: In the CPU's memory.
        timings: Milliseconds of the steps before; the time for the masks is added as "masks".
        picture: To be kept in the result, with its source.
        image_id: Identifies the picture; see `Segmentation`.
    """
    start = time.perf_counter()
    rles = found.rles(size)
    return Segmentation(
        prompt=prompt,
        size=size,
        rles=rles,
        boxes=np.array([masks.box(rle) for rle in rles], np.float32),
        scores=found.ious,
        presence=found.presence,
        threshold=0.0,
        model=network.model,
        timings={**timings, "masks": (time.perf_counter() - start) * 1000},
        notes=() if picture is None else picture.notes,
        source=None if picture is None else picture.source,
        image=None if picture is None else picture.pixels,
        image_id=image_id,
    )


def name_concept(network: Network, result: Segmentation, name: str) -> Segmentation:
    """Return the result of a concept under its name, with the hint that belongs to concepts."""
    return replace(result, prompt=name, hints=(*result.hints, Hint("other", network.concept_hint)))

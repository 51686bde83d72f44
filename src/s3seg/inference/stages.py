"""`Sam3Network`: the steps from a picture to detections, with a SAM 3 checkpoint.

`Segmenter` runs them one after another, and a service each where it belongs; see `s3seg.inference.network`. What they
return becomes results in `s3seg.inference.making_results`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from s3seg import images
from s3seg.checkpoints import Checkpoint
from s3seg.checkpoints.metadata import CheckpointMetadata
from s3seg.checkpoints.read_ahead import read_ahead
from s3seg.decoding import DecodingPool
from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.images.photographs import looks_like_photograph
from s3seg.inference.hints import hints_for
from s3seg.inference.network import MAX_PIXELS, EncodedImage, ResizedImage
from s3seg.inference.process_guard import ProcessGuard, refuse_copying
from s3seg.inference.prompts import BoxedPrompt, make_click_queries, make_queries
from s3seg.inference.quick_imports import collector_paused
from s3seg.results.hints import Hint
from s3seg.results.instances_file import MIN_SCORE
from s3seg.results.segmentation import ModelInfo
from s3seg.results.windows import Window, cut_pixels
from s3seg.tasks.clicks import Clicks

if TYPE_CHECKING:
    from s3seg.inference.accelerator.process import PredictorProcess
    from s3seg.sam3.click_predictor import ClickedMasks, ClickQuery
    from s3seg.sam3.device import DeviceStatus
    from s3seg.sam3.predictor import BoxPrompt, Detections, Query


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
        size, (pixels,) = await self._resized_in(pool, content, 1, name=name, user_id=user_id)
        return ResizedImage(pixels, size)

    @property
    def input_side(self) -> int:
        """The side of the network's input in pixels."""
        return self.predictor.image_size

    def read_tiles(self, content: bytes, windows: Sequence[Window], *, name: str) -> list[ResizedImage]:
        """Decode an encoded picture, and resize windows of it."""
        picture = images.load(content, name=name, max_pixels=self._max_pixels)
        return [self.resize(tile, tile.shape[:2]) for tile in cut_pixels(picture.pixels, windows, name=name)]

    async def read_tiles_in(
        self, pool: DecodingPool, content: bytes, windows: Sequence[Window], *, name: str, user_id: str
    ) -> list[ResizedImage]:
        """Do what `read_tiles` does in a process of a pool that runs `s3seg.inference.decoding.read_resized`."""
        _, tiles = await self._resized_in(pool, content, len(windows), windows=windows, name=name, user_id=user_id)
        sizes = [(y2 - y1, x2 - x1) for y1, x1, y2, x2 in windows]
        return [ResizedImage(pixels, size) for pixels, size in zip(tiles, sizes, strict=True)]

    async def _resized_in(
        self, pool: DecodingPool, content: bytes, count: int, *, name: str, **arguments: Any
    ) -> tuple[tuple[int, int], list[Any]]:
        """Run `read_resized` in a decoding process; returns the picture's size, and tensors as in `ResizedImage`."""
        from s3seg.sam3.resize import resized_from_bytes

        side, memory = self.predictor.image_size, pool.options.memory
        limits = {"side": side, "max_pixels": self._max_pixels, "max_memory": memory}
        fields, body = await pool.run(content, name=name, **limits, **arguments)
        height, width = (int(length) for length in fields["size"])
        each = 3 * side * side
        if len(body) != count * each or not 0 < height * width <= self._max_pixels:
            raise ImageDecodeError(f"{name}: cannot be read")  # the process may have been taken over
        return (height, width), [resized_from_bytes(body[k * each : (k + 1) * each], side) for k in range(count)]

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

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """What the checkpoint can be asked by: "words", and perhaps "boxes" and "clicks"."""
        learnt = {"boxes": self.metadata.box_prompts, "clicks": self.predictor.has_clicks}
        return ("words", *(kind for kind, can in learnt.items() if can))

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

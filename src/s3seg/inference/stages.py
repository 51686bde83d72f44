"""The steps of `Segmenter.segment` apart, so that a service can run each where it belongs.

Reading and masks are work for the CPU, on any thread; ``encode`` and ``find`` belong to the thread that owns
the accelerator, and take what waits together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from s3seg import images
from s3seg.results.segmentation import ModelInfo, Segmentation

if TYPE_CHECKING:
    from s3seg.inference.segmenter import Segmenter
    from s3seg.sam3.device import DeviceStatus

MAX_PIXELS = 100_000_000
"""Largest picture that a service reads: 100 megapixels. Masks are made at the picture's size."""

INSTANCES_ABOVE = 0.1
"""Instances are kept above this score, so that clients can move the threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class ResizedImage:
    """A picture as the network takes it.

    Attributes:
        pixels: uint8 (1, 3, side, side), a tensor.
        size: (height, width) of the picture.
    """

    pixels: Any
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A picture that the network has seen.

    Attributes:
        features: What it knows of it, on its device.
        size: (height, width) of the picture.
        nbytes: What the features take in the device's memory.
    """

    features: Any
    size: tuple[int, int]
    nbytes: int


class Network(Protocol):
    """What batching needs of a network; `SegmenterNetwork` is ours."""

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default."""
        ...

    @property
    def model(self) -> ModelInfo:
        """Which network, as results tell it."""
        ...

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        ...

    @property
    def weights_bytes(self) -> int:
        """What the weights take in memory."""
        ...

    def device_status(self) -> DeviceStatus:
        """What its device says of itself now. Any thread."""
        ...

    def read(self, content: bytes, *, name: str) -> ResizedImage:
        """Decode and resize an encoded picture. Any thread.

        Raises:
            ImageDecodeError: It cannot be read, or is too large.
        """
        ...

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Return if every prompt fits the model. Any thread, and quick.

        Raises:
            PromptError: One does not; says how many tokens it has.
        """
        ...

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        """Encode pictures in one forward pass. The accelerator's thread.

        Raises:
            OutOfMemoryError: They do not fit together.
            InferenceError: The network failed.
        """
        ...

    def find(self, jobs: Sequence[tuple[EncodedImage, Sequence[str]]]) -> list[list[Any]]:
        """Look for each picture's prompts, all together. The accelerator's thread.

        Raises:
            OutOfMemoryError: They do not fit together.
            InferenceError: The network failed.
        """
        ...

    def result(self, size: tuple[int, int], prompt: str, found: Any, timings: Mapping[str, float]) -> Segmentation:
        """Make masks of the picture's size from what one prompt found. Any thread."""
        ...

    def free(self) -> None:
        """Give back memory that is only kept in reserve. The accelerator's thread."""
        ...


class SegmenterNetwork:
    """A `Segmenter` as a `Network`.

    Args:
        segmenter: Loaded.
        max_pixels: Refuse larger pictures.
    """

    def __init__(self, segmenter: Segmenter, *, max_pixels: int = MAX_PIXELS) -> None:
        self._segmenter = segmenter
        self._predictor = segmenter.predictor
        self._max_pixels = max_pixels

    @property
    def threshold(self) -> float:
        """See `Network.threshold`."""
        return self._segmenter.card.threshold

    @property
    def model(self) -> ModelInfo:
        """See `Network.model`."""
        return self._segmenter.model

    @property
    def parameters(self) -> int:
        """See `Network.parameters`."""
        return self._predictor.parameters

    @property
    def weights_bytes(self) -> int:
        """See `Network.weights_bytes`."""
        return self._predictor.weights_bytes

    def device_status(self) -> DeviceStatus:
        """See `Network.device_status`."""
        from s3seg.sam3.device import device_status

        return device_status(self._predictor.device)

    def read(self, content: bytes, *, name: str) -> ResizedImage:
        """See `Network.read`."""
        side = self._predictor.image_size
        loaded = images.load(content, name=name, max_pixels=self._max_pixels, reduce_to=side)
        return ResizedImage(self._predictor.resize(loaded.pixels), loaded.full_size)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """See `Network.check_prompts`."""
        for prompt in prompts:
            self._predictor.tokenizer(prompt)

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        """See `Network.encode`."""
        encoded = self._predictor.encode_resized([picture.pixels for picture in pictures])
        return [
            EncodedImage(features, picture.size, features.nbytes)
            for picture, features in zip(pictures, encoded, strict=True)
        ]

    def find(self, jobs: Sequence[tuple[EncodedImage, Sequence[str]]]) -> list[list[Any]]:
        """See `Network.find`."""
        from s3seg.sam3.predictor import Query

        pairs = [(image.features, Query(prompt)) for image, prompts in jobs for prompt in prompts]
        found = iter(self._predictor.find_each(pairs, threshold=INSTANCES_ABOVE))
        return [[next(found).on_cpu() for _ in prompts] for _, prompts in jobs]

    def result(self, size: tuple[int, int], prompt: str, found: Any, timings: Mapping[str, float]) -> Segmentation:
        """See `Network.result`."""
        height, width = size
        return Segmentation(
            prompt=prompt,
            size=size,
            rles=found.rles(size),
            boxes=found.boxes_xyxy * np.array([width, height, width, height], np.float32),
            scores=found.scores,
            presence=found.presence,
            threshold=INSTANCES_ABOVE,
            model=self.model,
            timings=timings,
            hint=self._segmenter.hint(prompt),
        )

    def free(self) -> None:
        """See `Network.free`."""
        from s3seg.sam3.device import free_cached_memory

        free_cached_memory(self._predictor.device)

"""What the services need of a network: its steps from a picture to detections, and what these return.

A service runs each step where it belongs: reading pictures and making results on CPU threads, encoding and predicting
on the one thread that owns the accelerator, for all requests that wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from s3seg.decoding import DecodingPool
from s3seg.inference.prompts import BoxedPrompt
from s3seg.results.hints import Hint
from s3seg.results.segmentation import ModelInfo
from s3seg.results.windows import Window
from s3seg.tasks.clicks import Clicks

if TYPE_CHECKING:
    from s3seg.sam3.click_predictor import ClickedMasks
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

    @property
    def input_side(self) -> int:
        """The side of the network's input in pixels."""
        ...

    def read_tiles(self, content: bytes, windows: Sequence[Window], *, name: str) -> list[ResizedImage]:
        """Decode an encoded picture, and resize windows of it. May be called from any thread.

        Args:
            content: The bytes of a picture file.
            windows: Inside the picture.
            name: What error messages call the picture.

        Raises:
            ImageDecodeError: The picture cannot be read, or a window is outside it.
        """
        ...

    async def read_tiles_in(
        self, pool: DecodingPool, content: bytes, windows: Sequence[Window], *, name: str, user_id: str
    ) -> list[ResizedImage]:
        """Do what `read_tiles` does in a process of a pool; arguments and errors as for `read_in`."""
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

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """What the checkpoint can be asked by: "words", and perhaps "boxes" and "clicks"."""
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

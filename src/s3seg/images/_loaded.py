"""The result of loading a picture, and the limits that apply while it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from s3seg.errors import ImageDecodeError

MAX_PIXELS = 178_956_970
"""Largest picture read by default: the size at which Pillow itself refuses, above any single shot of a camera
(medium format backs have 151 megapixels)."""

MAX_MEMORY = 3 * 10**9
"""Most memory that decoding a file may take by default, as estimated from its header, in bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """An upright 8-bit RGB picture, and how it was made from its source.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB, C-contiguous, not shared with any other array.
        source: The path or URL of the picture, or the name that was passed to `s3seg.images.load`. None for bytes,
            arrays and other sources that have no name of their own.
        format: "PNG", "JPEG" ... as Pillow names it; "array" for arrays and tensors; None if unknown.
        mode: How the values were stored: Pillow's mode ("RGB", "P", "CMYK", "I;16" ...), with the bits of a channel
            if Pillow reduced them ("RGB;16"), or the dtype of an array.
        steps: The conversions that were made, in order; empty if the pixels are as stored.
        notes: What was lost or left out, in plain words for the user, such as "16 bits per channel were scaled to 8"
            or "only page 1 of 3 was read"; empty if nothing was.
        reduced_from: (height, width) of the picture, upright, if ``pixels`` are a smaller version of it.
    """

    pixels: npt.NDArray[np.uint8]
    source: str | None
    format: str | None
    mode: str
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reduced_from: tuple[int, int] | None = None

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of ``pixels``."""
        return self.height, self.width

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) of the picture, upright; larger than ``size`` if it was read at a reduced size."""
        return self.reduced_from or self.size


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest picture to read.

    Attributes:
        pixels: Pixels of a picture.
        bytes: Bytes read from a URL or a stream.
        memory: Estimated bytes of memory needed to decode a file.
    """

    pixels: int
    bytes: int
    memory: int

    def check_size(self, width: int, height: int, name: str) -> None:
        """Raise an error if a picture has no pixels, or more than the limit.

        Raises:
            ImageDecodeError: width or height is zero, or width x height is more than ``pixels``.
        """
        if width < 1 or height < 1:
            raise ImageDecodeError(f"{name}: the picture has no pixels (its size is {width} x {height})")
        if width * height > self.pixels:
            raise ImageDecodeError(
                f"{name}: too large: {width} x {height} is {width * height / 1e6:.1f} megapixels, "
                f"and the limit is {self.pixels / 1e6:.1f}; make it smaller"
                + _or_raise("max_pixels", is_default=self.pixels == MAX_PIXELS)
            )

    def check_memory(self, needed: int, name: str, kind: str) -> None:
        """Raise an error if decoding is estimated to need more memory than the limit.

        Raises:
            ImageDecodeError: ``needed`` is more than ``memory``.
        """
        if needed > self.memory:
            raise ImageDecodeError(
                f"{name}: too large: decoding this {kind} picture would take about {needed / 1e9:.1f} GB of memory, "
                f"and the limit is {self.memory / 1e9:.1f}; make it smaller"
                + _or_raise("max_memory", is_default=self.memory == MAX_MEMORY)
            )


def _or_raise(argument: str, *, is_default: bool) -> str:
    """Say how a limit is raised. Who chose another one knows, and users of a service cannot."""
    return f", or, if you trust the file, pass s3seg.images.load(..., {argument}=...)" if is_default else ""

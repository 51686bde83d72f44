"""The result of loading, and the one check of its size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from s3seg.errors import ImageDecodeError


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """A picture ready for the network, and what was done to get there.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 RGB, C-contiguous, sharing memory with nothing else.
        source: What messages and results call it: a path, a URL, or a description.
        format: "PNG", "JPEG" ... as Pillow names it; "array" for arrays and tensors; None if not known.
        mode: How the values were stored: Pillow's mode ("RGB", "P", "CMYK", "I;16" ...) or an array's dtype.
        steps: What was done, in order and in words; empty if the pixels are as stored.
        reduced_from: (height, width) of the picture, upright, where ``pixels`` are a smaller version of it.
    """

    pixels: npt.NDArray[np.uint8]
    source: str
    format: str | None
    mode: str
    steps: tuple[str, ...] = ()
    reduced_from: tuple[int, int] | None = None

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return self.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, after the orientation was applied."""
        return self.height, self.width

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) of the picture itself, upright; differs from ``size`` where it was read reduced."""
        return self.reduced_from or self.size


def check_size(width: int, height: int, name: str, *, max_pixels: int) -> None:
    """Refuse a picture without pixels, or with too many.

    Raises:
        ImageDecodeError: width or height is zero, or width x height is more than ``max_pixels``.
    """
    if width < 1 or height < 1:
        raise ImageDecodeError(f"{name}: the picture has no pixels (it is {width} x {height})")
    if width * height > max_pixels:
        raise ImageDecodeError(
            f"{name}: too large: {width} x {height} is {width * height / 1e6:.1f} megapixels, "
            f"and the limit is {max_pixels / 1e6:.1f}; "
            "make it smaller, or raise max_pixels if you trust the file"
        )

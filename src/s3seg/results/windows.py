"""Windows of pictures and masks: cut one out, or put a mask into a larger picture, without decoding the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from s3seg.errors import ImageDecodeError
from s3seg.results import masks
from s3seg.results.masks import RLE

Window: TypeAlias = tuple[int, int, int, int]
"""(y1, x1, y2, x2) in pixels of the picture; bottom and right are exclusive."""


def crop(rle: RLE, window: Window) -> RLE:
    """Return the part of a mask inside a window, as a mask of the window's size.

    Args:
        rle: A mask.
        window: Inside the picture, not empty.
    """
    height = rle.size[0]
    y1, x1, y2, x2 = window
    starts, ends = masks.runs(rle)
    first, last = np.searchsorted(ends, x1 * height, "right"), np.searchsorted(starts, x2 * height)
    starts, ends = np.maximum(starts[first:last], x1 * height), np.minimum(ends[first:last], x2 * height)
    column, top, bottom = _by_column(starts, ends, height)
    top, bottom = np.maximum(top, y1), np.minimum(bottom, y2)
    inside = bottom > top
    column, top, bottom = column[inside] - x1, top[inside] - y1, bottom[inside] - y1
    return masks.from_runs(column * (y2 - y1) + top, column * (y2 - y1) + bottom, (y2 - y1, x2 - x1))


def place(rle: RLE, offset: tuple[int, int], size: tuple[int, int]) -> RLE:
    """Return a mask of a larger picture that has this mask at an offset, and nothing else.

    Args:
        rle: The mask of a window of the picture.
        offset: (y, x) of the window's first pixel.
        size: (height, width) of the picture.
    """
    column, top, bottom = _by_column(*masks.runs(rle), rle.size[0])
    start = (column + offset[1]) * size[0] + offset[0]
    return masks.from_runs(start + top, start + bottom, size)


def cut_pixels(pixels: np.ndarray, windows: Sequence[Window], *, name: str) -> list[np.ndarray]:
    """Return windows of a picture, each contiguous.

    Args:
        pixels: (H, W, 3).
        windows: As planned for a picture of this size.
        name: What error messages call the picture.

    Raises:
        ImageDecodeError: A window is not inside the picture, so that it cannot be the one that they were planned for.
    """
    height, width = pixels.shape[:2]
    if not all(0 <= y1 < y2 <= height and 0 <= x1 < x2 <= width for y1, x1, y2, x2 in windows):
        raise ImageDecodeError(
            f"{name}: cannot be cut into tiles: it has {width} x {height} pixels, less than expected"
        )
    return [np.ascontiguousarray(pixels[y1:y2, x1:x2]) for y1, x1, y2, x2 in windows]


def common(one: Window, other: Window) -> Window | None:
    """Return the window that two windows share, or None."""
    y1, x1 = max(one[0], other[0]), max(one[1], other[1])
    y2, x2 = min(one[2], other[2]), min(one[3], other[3])
    return (y1, x1, y2, x2) if y1 < y2 and x1 < x2 else None


def _by_column(starts: np.ndarray, ends: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut runs at the ends of columns; returns column, top and bottom (exclusive) of each piece."""
    if not len(starts):
        return starts, starts, ends
    first, last = starts // height, (ends - 1) // height
    count = last - first + 1
    run = np.repeat(np.arange(len(starts)), count)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    top = np.maximum(starts[run] - column * height, 0)
    bottom = np.minimum(ends[run] - column * height, height)
    return column, top, bottom

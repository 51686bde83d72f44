"""Turn mask logits on a coarse grid into an RLE at the size of the picture, without computing every pixel.

Bilinear interpolation is linear within a cell of the grid, so a column of pixels changes sign at most once in a cell.
Those sign changes are the ends of the runs in an RLE, so the time depends on the outline of a mask, not on its area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3seg.results import masks
from s3seg.results.masks import RLE


def encode(logits: np.ndarray, size: tuple[int, int]) -> RLE:
    """Encode the pixels that are positive after interpolating logits bilinearly (``align_corners=False``) to a size.

    Args:
        logits: float32 (h, w); a pixel whose value is NaN counts as negative.
        size: (height, width) of the picture.

    Raises:
        MaskError: The size is not positive, or above `s3seg.results.masks.MAX_PIXELS`.
    """
    height, width = masks.checked_size(size)
    positive = logits > 0
    rows, columns = np.flatnonzero(positive.any(1)), np.flatnonzero(positive.any(0))
    if not len(rows):
        return masks.from_runs(np.empty(0, np.int64), np.empty(0, np.int64), (height, width))
    # a pixel is positive only if one of the four cells around it is, so the rest of the picture can be skipped
    y = _taps(rows, logits.shape[0], height)
    x = _taps(columns, logits.shape[1], width)
    used = logits[y.low[0] : y.low[-1] + 2, x.low[0] : x.low[-1] + 2]
    values, slopes = _lines(used.T, x.low)  # (W', h)
    values += x.weight[:, None] * slopes
    changes = _changes(values.T, y) + (x.first * height + y.first)
    return masks.from_runs(changes[0::2], changes[1::2], (height, width))


@dataclass(frozen=True, slots=True)
class _Taps:
    """Positions on the grid, along one axis, of the pixels from ``first`` on: arrays (P,), one entry per pixel."""

    first: int
    low: np.ndarray
    """The grid cell before the pixel."""
    weight: np.ndarray
    """float32, the weight of the cell after the pixel."""
    pixels: int
    """The size of the picture along this axis."""
    scale: float
    """Cells per pixel."""


def _taps(positive: np.ndarray, cells: int, pixels: int) -> _Taps:
    """Compute the positions of the pixels that positive cells (ascending indices) contribute to."""
    scale = cells / pixels
    first = int(max(0, (positive[0] - 0.5) / scale - 1))
    last = int(min(pixels, (positive[-1] + 1.5) / scale + 1))
    # in float32, and in this order, as PyTorch does
    centre = (np.arange(first, last, dtype=np.float32) + np.float32(0.5)) * np.float32(scale) - np.float32(0.5)
    centre = np.maximum(centre, 0)
    low = np.minimum(centre.astype(np.int64), cells - 1)
    return _Taps(first, low, centre - low.astype(np.float32), pixels, scale)


def _lines(grid: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the linear functions after the cells ``low``, along the first axis of a grid that begins at ``low[0]``.

    Returns:
        Values and slopes (P, ...): a pixel is value + weight * slope. After the last cell the slope is 0.
    """
    grid = np.ascontiguousarray(grid)
    slopes = np.zeros_like(grid)
    np.subtract(grid[1:], grid[:-1], out=slopes[:-1])
    index = low - low[0]
    return grid.take(index, axis=0), slopes.take(index, axis=0)


def _changes(columns: np.ndarray, y: _Taps) -> np.ndarray:
    """Find the sign changes down each column; outside of the picture everything is negative.

    Args:
        columns: (h, W') logits: the columns of the picture, at the rows of the grid from ``y.low[0]`` on.
        y: The positions of the pixels of a column.

    Returns:
        Ascending positions (2R,) ``column * height + row`` of the pixels whose sign differs from the pixel before.
    """
    count, width = len(y.low), columns.shape[1]
    steps = np.flatnonzero(y.low[1:] != y.low[:-1])
    begins, ends = (
        np.concatenate([[0], steps + 1]),
        np.concatenate([steps, [count - 1]]),
    )  # first and last pixel of each cell
    values, slopes = _lines(columns, y.low[begins])  # (K, W')
    at_begin = values + y.weight[begins, None] * slopes > 0
    at_end = values + y.weight[ends, None] * slopes > 0

    outside = np.zeros((1, width), bool)
    cell, column = np.divmod(
        np.flatnonzero(np.concatenate([at_begin, outside]) != np.concatenate([outside, at_end])), width
    )
    between = column * y.pixels + np.concatenate([begins, [count]])[cell]

    within = np.flatnonzero(at_begin != at_end)
    zero = -values.ravel()[within] / slopes.ravel()[within]  # where the line crosses 0, relative to its cell
    cell, column = np.divmod(within, width)
    begin, end = begins[cell], ends[cell]
    row = np.floor((y.low[begin] + zero + 0.5) / y.scale - 0.5).astype(np.int64) + 1 - y.first
    return np.sort(np.concatenate([between, column * y.pixels + np.clip(row, begin + 1, end)]))

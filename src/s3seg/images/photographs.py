"""Guess whether a picture is a photograph, to warn users of a checkpoint that knows drawings only.

The guess rests on what a drawing has and a photograph lacks: areas of one colour, or of a colour that changes evenly.
How often it is wrong: `python -m benchmarks photographs`, and docs/model-card.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 224  # the picture is looked at in this size, so that its own size and fine noise matter little
_BLOCK = 4  # side of the blocks that are compared with an even colour, at half of that size
_SAME_COLOUR = 1  # levels between neighbours, out of 255
_MOST_FLAT = 0.55
_LEAST_STEP = 3.0
_MOST_EVEN = 0.5
_NOISE = (1.5, 6.0)  # levels that noise adds to an even colour: at least, at most


def looks_like_photograph(pixels: npt.NDArray[np.uint8]) -> bool:
    """Return whether a picture looks like a photograph rather than a drawing. Takes a few milliseconds.

    It does if three things hold:

    - less than 55 % of its pixels have the colour of their neighbours, to within one level, as lossless drawings do;
    - at half size, the colour changes by more than 3 levels from one pixel to the next in most places;
    - less than half of its small blocks are even, that is, of a colour that is constant or changes linearly. What
      remains after a plane is fitted to the colours must be no more than the noise of the picture, which is taken from
      its most even blocks, so a noisy or compressed drawing still counts as even.

    Args:
        pixels: (H, W, 3) uint8, RGB, of any size.
    """
    full = _resized(pixels)
    if (_steps(full) <= _SAME_COLOUR).mean() >= _MOST_FLAT:
        return False
    half = full.reshape(_SIDE // 2, 2, _SIDE // 2, 2, 3).mean(axis=(1, 3))
    return bool(np.median(_steps(half)) > _LEAST_STEP and _share_of_even_blocks(half) < _MOST_EVEN)


def _resized(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    if pixels.shape[:2] == (_SIDE, _SIDE):
        return pixels.astype(np.float32)
    resized = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _steps(colours: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return how much each pixel differs from the ones to its right and below, in its most different channel."""
    right = np.abs(np.diff(colours, axis=1)).max(axis=-1)[:-1]
    below = np.abs(np.diff(colours, axis=0)).max(axis=-1)[:, :-1]
    return np.maximum(right, below)  # (H - 1, W - 1)


def _share_of_even_blocks(colours: npt.NDArray[np.float32]) -> float:
    """Return the share of blocks in which a plane fits the colours as well as in the most even blocks, 0..1."""
    count = len(colours) // _BLOCK
    blocks = colours.reshape(count, _BLOCK, count, _BLOCK, 3).transpose(0, 2, 4, 1, 3)
    rest = blocks.reshape(count * count, 3, _BLOCK**2) @ _without_plane().T
    deviation = np.sqrt((rest**2).sum(axis=-1).max(axis=-1) / (_BLOCK**2 - 3))  # of the most different channel
    noise = np.clip(1.6 * np.quantile(deviation, 0.15), *_NOISE)
    return float((deviation < noise).mean())


def _without_plane() -> npt.NDArray[np.float32]:
    """Return the matrix that leaves of a block's values what the best-fitting plane does not explain."""
    y, x = np.mgrid[:_BLOCK, :_BLOCK].reshape(2, -1)
    planes = np.stack([np.ones_like(x), x, y], axis=1).astype(np.float64)
    return (np.eye(_BLOCK**2) - planes @ np.linalg.pinv(planes)).astype(np.float32)

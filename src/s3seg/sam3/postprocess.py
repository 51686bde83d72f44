"""From mask logits on a coarse grid to masks on the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MaskCrop:
    """A mask's bounding part; all outside of it is empty."""

    pixels: np.ndarray
    """bool (h, w), column-major"""
    offset: tuple[int, int]
    """(y, x) of its corner in the image."""


def upsample_mask(logits: Tensor, size: tuple[int, int]) -> MaskCrop:
    """Interpolate mask logits bilinearly to an image's size, then threshold at 0.

    The same mask as interpolating all of it (``align_corners=False``): an output between four inputs is positive
    only if one of them is, so only the part around the positive ones is computed. A mask on a 12-megapixel image
    then costs what its own area costs.

    Args:
        logits: fp32 (h, w).
        size: (height, width) of the image.
    """
    positive = logits > 0
    rows, columns = positive.any(1).nonzero()[:, 0], positive.any(0).nonzero()[:, 0]
    if not len(rows):
        return MaskCrop(np.zeros((1, 1), bool), (0, 0))
    top, y_low, y_weight = _taps(rows, logits.shape[0], size[0])
    left, x_low, x_weight = _taps(columns, logits.shape[1], size[1])
    y_high = (y_low + 1).clamp(max=logits.shape[0] - 1)
    x_high = (x_low + 1).clamp(max=logits.shape[1] - 1)
    first, last = int(x_low[0]), int(x_high[-1])
    used = logits.T[first : last + 1]  # columns first: the result is column-major, as RLE wants it
    down = torch.lerp(used.index_select(1, y_low), used.index_select(1, y_high), y_weight)  # (w, H')
    before, behind = down.index_select(0, x_low - first), down.index_select(0, x_high - first)
    full = torch.lerp(before, behind, x_weight[:, None])  # (W', H')
    return MaskCrop((full > 0).T.cpu().numpy(), (top, left))


def _taps(positive: Tensor, cells: int, pixels: int) -> tuple[int, Tensor, Tensor]:
    """Find which cells each pixel lies between, along one axis.

    Returns:
        The first pixel that a positive cell can reach; then for each pixel from there on, as far as they reach, the
        cell before it and the weight of the cell behind it.
    """
    scale = cells / pixels
    first = int(max(0, (positive[0] - 0.5) / scale - 1))
    last = int(min(pixels, (positive[-1] + 1.5) / scale + 1))
    centre = ((torch.arange(first, last, device=positive.device) + 0.5) * scale - 0.5).clamp(min=0)
    low = centre.floor().long().clamp(max=cells - 1)
    return first, low, (centre - low).float()

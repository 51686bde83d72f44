"""Boxes as waves: targets that tell pixels and queries of neighbouring things apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FREQUENCIES = (0.5, 1.0, 2.0, 3.0)
CODES = 4 * len(FREQUENCIES) + 2


def box_codes(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4), 0..1 -> (..., CODES): sines and cosines of the centre, and the scaled size."""
    centres = boxes_cxcywh[..., :2]
    angles = torch.stack([centres * frequency for frequency in FREQUENCIES], dim=-1) * 2 * math.pi
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return torch.cat([waves, boxes_cxcywh[..., 2:] * 3], dim=-1)

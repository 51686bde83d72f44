"""Where things are: sine codes of positions, points and boxes, and the rotary tables of the ViT. All in fp32."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

TEMPERATURE = 10_000


def sine_code(coordinates: Tensor, features: int) -> Tensor:
    """Encode each coordinate as interleaved sines and cosines.

    Args:
        coordinates: (...), in radians at the base frequency.
        features: Length of a code; even.

    Returns:
        fp32 (..., features)
    """
    exponents = torch.arange(features // 2, device=coordinates.device, dtype=torch.float32) * 2 / features
    angles = coordinates.float()[..., None] / TEMPERATURE**exponents  # (..., features / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def encode_points(xy: Tensor, channels: int) -> Tensor:
    """(..., 2) normalised to 0..1 -> fp32 (..., channels), y before x."""
    return sine_code(xy.float().flip(-1) * (2 * math.pi), channels // 2).flatten(-2)


def encode_boxes(boxes_cxcywh: Tensor, channels: int) -> Tensor:
    """(..., 4) normalised -> fp32 (..., 2 * channels), in the order cy, cx, w, h."""
    cx, cy, w, h = (boxes_cxcywh.float() * (2 * math.pi)).unbind(-1)
    return sine_code(torch.stack([cy, cx, w, h], dim=-1), channels // 2).flatten(-2)


def encode_grid(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """The position code of every cell of a feature map: fp32 (height * width, channels)."""
    return _grid_table(height, width, channels, device)


def rotary_table(height: int, width: int, features: int, scale: float, theta: float, device: torch.device) -> Tensor:
    """Angles of the axial 2-D RoPE: fp32 (2, height * width, features), cosines then sines.

    The first half of the features turns with x, the second with y; neighbours share an angle.
    ``scale`` multiplies positions, so that a larger grid spans the angles of the one trained on.
    """
    return _rotary_table(height, width, features, scale, theta, device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Apply a :func:`rotary_table` to ``x`` (..., N, features); computed in fp32, returned in x's dtype."""
    cos, sin = table
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-b, a], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).to(x.dtype)


# A table made under inference_mode could never be used in training: both caches leave that mode.
@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _grid_table(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    y = torch.arange(1, height + 1, device=device) / (height + 1e-6) * (2 * math.pi)
    x = torch.arange(1, width + 1, device=device) / (width + 1e-6) * (2 * math.pi)
    code_y = sine_code(y, channels // 2)[:, None].expand(height, width, -1)
    code_x = sine_code(x, channels // 2)[None].expand(height, width, -1)
    return torch.cat([code_y, code_x], dim=-1).flatten(0, 1)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _rotary_table(height: int, width: int, features: int, scale: float, theta: float, device: torch.device) -> Tensor:
    half = features // 2
    frequencies = theta ** -(torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    y, x = torch.meshgrid(
        torch.arange(height, device=device) * scale, torch.arange(width, device=device) * scale, indexing="ij"
    )
    angles = torch.cat([x.reshape(-1, 1) * frequencies, y.reshape(-1, 1) * frequencies], dim=-1)
    angles = angles.repeat_interleave(2, dim=-1)
    return torch.stack([angles.cos(), angles.sin()])

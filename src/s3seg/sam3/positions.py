"""Position encodings, all in fp32: sine encodings of points, boxes and feature maps, and the ViT's rotary tables.

They follow ``sam3/model/position_encoding.py`` and ``sam3/model/vitdet.py`` of the reference implementation.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

TEMPERATURE = 10_000


def sine_encoding(coordinates: Tensor, features: int) -> Tensor:
    """Encode each coordinate as interleaved sines and cosines.

    Args:
        coordinates: (...), in radians at the base frequency.
        features: Length of one encoding; even.

    Returns:
        fp32 (..., features)
    """
    exponents = torch.arange(features // 2, device=coordinates.device, dtype=torch.float32) * 2 / features
    angles = coordinates.float()[..., None] / TEMPERATURE**exponents  # (..., features / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def encode_points(xy: Tensor, channels: int) -> Tensor:
    """Encode points (..., 2) as x, y in 0..1 -> fp32 (..., channels), with y before x."""
    return sine_encoding(xy.float().flip(-1) * (2 * math.pi), channels // 2).flatten(-2)


def encode_boxes(boxes_cxcywh: Tensor, channels: int) -> Tensor:
    """Encode boxes (..., 4) in 0..1 -> fp32 (..., 2 * channels), in the order cy, cx, w, h."""
    cx, cy, w, h = (boxes_cxcywh.float() * (2 * math.pi)).unbind(-1)
    return sine_encoding(torch.stack([cy, cx, w, h], dim=-1), channels // 2).flatten(-2)


def encode_grid(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Encode the cells of a feature map: fp32 (height * width, channels), row by row."""
    return _grid_table(height, width, channels, device)


def rotary_table(height: int, width: int, features: int, scale: float, theta: float, device: torch.device) -> Tensor:
    """Compute the cosines and sines of the axial 2-D RoPE (Heo et al., 2024): fp32 (height * width, features / 2, 2).

    The first half of the features rotates with x and the second with y; adjacent features form a pair and share an
    angle. ``scale`` multiplies the positions, so that a larger grid spans the range of angles seen in training.
    """
    return _rotary_table(height, width, features, scale, theta, device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate ``x`` (..., N, features) by a `rotary_table`. Computed in fp32, returned in the dtype of ``x``."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling() or x.device.type == "mps":  # compilers fuse only real arithmetic
        (a, b), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1)
    else:  # one pass over memory instead of eight
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return turned.flatten(-2).to(x.dtype)


# Tensors made under inference_mode cannot be used in training, so cached tables are made outside of it.
@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _grid_table(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    y = torch.arange(1, height + 1, device=device) / (height + 1e-6) * (2 * math.pi)
    x = torch.arange(1, width + 1, device=device) / (width + 1e-6) * (2 * math.pi)
    encoded_y = sine_encoding(y, channels // 2)[:, None].expand(height, width, -1)
    encoded_x = sine_encoding(x, channels // 2)[None].expand(height, width, -1)
    return torch.cat([encoded_y, encoded_x], dim=-1).flatten(0, 1)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _rotary_table(height: int, width: int, features: int, scale: float, theta: float, device: torch.device) -> Tensor:
    half = features // 2
    frequencies = theta ** -(torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    y, x = torch.meshgrid(
        torch.arange(height, device=device) * scale, torch.arange(width, device=device) * scale, indexing="ij"
    )
    angles = torch.cat([x.reshape(-1, 1) * frequencies, y.reshape(-1, 1) * frequencies], dim=-1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)

"""Attention, MLP and the small tensor functions that several parts of the network share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from s3seg.sam3.kernels import attend, linear_relu


class Attention(nn.Module):
    """Multi-head attention with separate projections for query, key and value.

    Attributes:
        cudnn: Whether to use the kernel of cuDNN; see `s3seg.sam3.kernels.attend`.
    """

    cudnn = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from each query to all keys.

        Args:
            query: (B, N, C).
            key: (B, M, C).
            value: (B, M, C).
            mask: bool, True where a key may be attended to; or a float bias to add. Broadcast to (B, heads, N, M).

        Returns:
            (B, N, C)
        """
        q, k, v = self._split(self.q(query)), self._split(self.k(key)), self._split(self.v(value))
        attended = attend(q, k, v, mask, cudnn=self.cudnn)  # (B, heads, N, C / heads)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.layers = cast("Sequence[nn.Linear]", layers)

    def forward(self, x: Tensor) -> Tensor:
        """(..., first width) -> (..., last width)."""
        *others, last = self.layers  # a slice would be a new ModuleList, which takes as long as a layer
        for layer in others:
            x = linear_relu(x, layer)
        return last(x)


def attention_mask(valid: Tensor | None) -> Tensor | None:
    """Make an attention mask, bool (B, 1, 1, M), from a padding mask, bool (B, M), that is True for real tokens.

    None means that there is no padding. Without a mask, CUDA has faster attention kernels to choose from.
    """
    return None if valid is None else valid[:, None, None, :]


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """The logit of ``x``, with ``x`` and ``1 - x`` clamped to at least ``eps``."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as center and size -> (..., 4) as corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)

"""The prompt encoder of the click head: points, boxes and earlier masks become tokens and a map.

Follows ``PromptEncoder`` in ``sam3/sam/prompt_encoder.py`` of the reference implementation, which is that of SAM 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import ClickConfig

NEGATIVE, POSITIVE, BOX_START, BOX_END = range(4)
"""What a point says: outside the object, inside it, the top left and the bottom right corner of its box."""


@dataclass(frozen=True, slots=True)
class ClickPrompts:
    """The points, boxes and masks of N objects in one image, padded to the same number K of points."""

    points: Tensor
    """fp32 (N, K, 2), x and y in the image, 0..1. A box is two points."""
    labels: Tensor
    """int64 (N, K): `NEGATIVE`, `POSITIVE`, `BOX_START` or `BOX_END`."""
    valid: Tensor | None
    """bool (N, K), False where a point is padding; None if none is."""
    mask_logits: Tensor | None = None
    """(N, 4h, 4w): what an earlier round predicted, for patches h x w; None if no object has any."""
    has_mask: Tensor | None = None
    """bool (N,): which objects have `mask_logits`; None if all have."""


class ClickEncoder(nn.Module):
    """Encodes each point as a token, and a mask of an earlier round as a map to add to the image."""

    FP32 = ("frequencies",)
    frequencies: Tensor

    def __init__(self, config: ClickConfig, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, channels // 2))  # random, and not trained
        self.labels = nn.Parameter(torch.zeros(4, channels))
        self.no_point = nn.Parameter(torch.zeros(1, channels))
        self.no_mask = nn.Parameter(torch.zeros(1, channels))
        quarter = config.mask_channels // 4
        self.mask_down1 = nn.Conv2d(1, quarter, 2, 2)
        self.mask_norm1 = ChannelNorm(quarter)
        self.mask_down2 = nn.Conv2d(quarter, config.mask_channels, 2, 2)
        self.mask_norm2 = ChannelNorm(config.mask_channels)
        self.mask_project = nn.Conv2d(config.mask_channels, channels, 1)

    def forward(self, prompts: ClickPrompts, image_size: int) -> tuple[Tensor, Tensor | None]:
        """Encode the points of N objects.

        Args:
            prompts: The prompts.
            image_size: Side of the network's input in pixels. A point is taken at the middle of its pixel.

        Returns:
            Tokens (N, K + 1, C), of which the last says that there are no further points, and which of them are real,
            bool (N, K + 1); None if all are.
        """
        encoded = self.encode_positions(prompts.points + 0.5 / image_size).to(self.labels.dtype)
        tokens = encoded + self.labels[prompts.labels]
        tokens = torch.cat([tokens, self.no_point.expand(len(tokens), 1, -1)], dim=1)
        return tokens, None if prompts.valid is None else F.pad(prompts.valid, (0, 1), value=True)

    def dense(self, prompts: ClickPrompts) -> Tensor:
        """Encode the masks of N objects: (N, h * w, C); (1, 1, C) if none has a mask, which is the same for all."""
        if prompts.mask_logits is None:
            return self.no_mask[None]
        x = prompts.mask_logits.to(self.no_mask.dtype)[:, None]
        x = F.gelu(self.mask_norm1(self.mask_down1(x)))
        x = F.gelu(self.mask_norm2(self.mask_down2(x)))
        encoded = self.mask_project(x).flatten(2).transpose(1, 2)
        if prompts.has_mask is None:
            return encoded
        return torch.where(prompts.has_mask[:, None, None], encoded, self.no_mask)

    def encode_positions(self, xy: Tensor) -> Tensor:
        """Encode points (..., 2) as x, y in 0..1 with random Fourier features (Tancik et al., 2020): fp32 (..., C)."""
        angles = (2 * xy.float() - 1) @ self.frequencies.float() * (2 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def encode_grid(self, height: int, width: int) -> Tensor:
        """Encode the middles of the cells of a feature map: fp32 (height * width, C), row by row."""
        device = self.frequencies.device
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) / height,
            (torch.arange(width, device=device) + 0.5) / width,
            indexing="ij",
        )
        return self.encode_positions(torch.stack([x, y], dim=-1)).flatten(0, 1)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of a map (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

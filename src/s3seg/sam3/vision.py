"""The image encoder: a ViT with windowed attention and rotary positions, and a feature pyramid of three scales.

It follows ``sam3/model/vitdet.py`` and ``sam3/model/necks.py`` of the reference implementation; the ViT is the image
tower of the Perception Encoder (Bolya et al., 2025), the neck that of ViTDet (Li et al., 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config, VisionConfig
from s3seg.sam3.kernels import attend
from s3seg.sam3.positions import rotary_table, rotate


class VisionEncoder(nn.Module):
    """Encodes images as feature maps at 4, 2 and 1 times the patch grid, independently of any prompt."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        self.trunk = ViT(config.vision)
        self.neck = Neck(config.vision.width, config.channels)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, H, W) in -1..1 -> maps (B, channels, s * H / patch, s * W / patch) for s = 4, 2, 1."""
        return self.neck(self.trunk(pixels))


class ViT(nn.Module):
    """A plain vision transformer; most layers attend within windows, a few (``global_layers``) globally."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)
        side = config.pretrain_image_size // config.patch_size
        self.position_embedding = nn.Parameter(torch.zeros(side, side, config.width))
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        layers = nn.ModuleList(
            ViTLayer(config, window=0 if i in config.global_layers else config.window) for i in range(config.depth)
        )
        self.layers = cast("Sequence[ViTLayer]", layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> patch tokens (B, H / patch, W / patch, width)."""
        x = self.patch_embed(pixels).permute(0, 2, 3, 1)  # (B, h, w, width)
        x = self.norm(x + self._tiled_positions(*x.shape[1:3]))
        for layer in self.layers:
            x = layer(x)
        return x

    def _tiled_positions(self, height: int, width: int) -> Tensor:
        side = self.position_embedding.shape[0]
        return self.position_embedding.repeat(-(-height // side), -(-width // side), 1)[:height, :width]


class ViTLayer(nn.Module):
    """Self-attention within windows of ``window`` x ``window`` tokens (0: global), then an MLP; pre-norm."""

    def __init__(self, config: VisionConfig, *, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.width, config.norm_eps)
        self.attention = RotaryAttention(config)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, h, w, width) -> (B, h, w, width)."""
        _, height, width, _ = x.shape
        normed = self.norm1(x)
        if self.window:
            windows = split_windows(normed, self.window)
            x = x + join_windows(self.attention(windows), height, width)
        else:
            x = x + self.attention(normed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class RotaryAttention(nn.Module):
    """Multi-head self-attention over a grid of tokens, with axial 2-D RoPE.

    Attributes:
        cudnn: Whether to use the kernel of cuDNN; see `s3seg.sam3.kernels.attend`.
    """

    cudnn = False

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, h, w, width) -> (B, h, w, width)."""
        _, height, width, channels = x.shape
        heads = self.config.heads
        qkv = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, heads, -1))  # (B, N, 3, heads, width / heads)
        queries_and_keys, (v,) = qkv.permute(2, 0, 3, 1, 4).split((2, 1))  # each (B, heads, N, width / heads)
        table = rotary_table(
            height, width, channels // heads, self.config.window / width, self.config.rope_theta, x.device
        )
        q, k = rotate(queries_and_keys, table)
        attended = attend(q, k, v, cudnn=self.cudnn)
        return self.out(attended.transpose(1, 2).flatten(2)).unflatten(1, (height, width))


def split_windows(x: Tensor, window: int) -> Tensor:
    """Split (B, h, w, C) into windows (B * windows, window, window, C), padded with zeros where needed.

    The padding is attended to like other tokens: the reference implementation does not mask it.
    """
    _, height, width, _ = x.shape
    if height % window or width % window:  # padding by nothing would be a copy
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, rows, window, columns, window, C)
    return x.transpose(2, 3).flatten(0, 2)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `split_windows`: (B * windows, window, window, C) -> (B, height, width, C), without the padding."""
    window = windows.shape[1]
    rows, columns = -(-height // window), -(-width // window)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # (B, rows, window, columns, window, C)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class Neck(nn.Module):
    """A simple feature pyramid (ViTDet) of three scales. SAM 3's fourth, at 0.5x, is never used and left out."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.up4_first = nn.ConvTranspose2d(width, width // 2, 2, 2)
        self.up4_second = nn.ConvTranspose2d(width // 2, width // 4, 2, 2)
        self.up2 = nn.ConvTranspose2d(width, width // 2, 2, 2)
        self.project = nn.ModuleList(nn.Conv2d(width // n, channels, 1) for n in (4, 2, 1))
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, h, w, width) -> maps (B, channels, s * h, s * w) for s = 4, 2, 1."""
        x = x.permute(0, 3, 1, 2)
        scales = (self.up4_second(F.gelu(self.up4_first(x))), self.up2(x), x)
        return tuple(
            smooth(project(scale)) for scale, project, smooth in zip(scales, self.project, self.smooth, strict=True)
        )

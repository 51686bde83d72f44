"""The two heads: how well a query fits the prompt, and which pixels are its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config
from s3seg.sam3.layers import MLP, Attention, visible

SCORE_LIMIT = 12.0


class Scoring(nn.Module):
    """Dot product of each query with the pooled prompt; fp32 in every precision."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        channels = config.channels
        self.prompt_mlp = MLP(channels, config.decoder.mlp_width, channels)
        self.prompt_norm = nn.LayerNorm(channels)
        self.prompt_project = nn.Linear(channels, channels)
        self.query_project = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, prompt: Tensor, valid: Tensor) -> Tensor:
        """queries (P, Q, C), prompt (P, M, C), valid bool (P, M) -> logits, fp32 (P, Q)."""
        queries, prompt = queries.float(), prompt.float()
        prompt = self.prompt_norm(prompt + self.prompt_mlp(prompt))
        weight = valid.float()[..., None]
        pooled = (prompt * weight).sum(1) / weight.sum(1).clamp(min=1)  # (P, C)
        logits = self.query_project(queries) @ self.prompt_project(pooled)[..., None]
        return (logits[..., 0] / queries.shape[-1] ** 0.5).clamp(-SCORE_LIMIT, SCORE_LIMIT)


class MaskHead(nn.Module):
    """Masks as dot products of query embeddings with pixel embeddings, at 4 times the patch grid."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        channels = config.channels
        self.prompt_norm = nn.LayerNorm(channels)
        self.prompt_attention = Attention(channels, config.mask_heads)
        # The neck has three maps, so two stages run; the full-size checkpoint holds a third, which none reaches.
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.mask_stages)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(config.mask_stages))
        self.pixel_project = nn.Conv2d(channels, channels, 1)
        self.query_mlp = MLP(channels, channels, channels, channels)

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """queries (P, Q, C), pixels (P, C, H, W) -> mask logits (P, Q, H, W)."""
        return torch.einsum("pqc,pchw->pqhw", self.query_mlp(queries), pixels)

    def embed_pixels(self, maps: Sequence[Tensor], encoded: Tensor, prompt: Tensor, valid: Tensor) -> Tensor:
        """Pixel embeddings of each prompt.

        Args:
            maps: The neck's maps of each prompt's image, (P, C, H, W) and finest first; the last one gives only the
                shape, its place is taken by ``encoded``.
            encoded: (P, h * w, C), from the encoder.
            prompt: (P, M, C).
            valid: bool (P, M).

        Returns:
            (P, C, H, W), at the resolution of the finest map.
        """
        encoded = encoded + self.prompt_attention(self.prompt_norm(encoded), prompt, prompt, visible(valid))
        x = encoded.transpose(1, 2).unflatten(-1, maps[-1].shape[-2:])
        for finer, convolution, norm in zip(maps[-2::-1], self.convolutions, self.norms, strict=False):
            x = F.interpolate(x, size=finer.shape[-2:], mode="nearest") + finer
            x = F.relu(norm(convolution(x)))
        return self.pixel_project(x)

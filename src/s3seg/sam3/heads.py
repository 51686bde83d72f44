"""The two heads: how well a query fits the prompt, and which pixels are its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

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
        convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.mask_stages))
        self.convolutions = cast("Sequence[nn.Conv2d]", convolutions)
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(config.mask_stages))
        self.pixel_project = nn.Conv2d(channels, channels, 1)
        self.query_mlp = MLP(channels, channels, channels, channels)

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """queries (P, Q, C), pixels (P, C, H, W) from `embed_pixels` -> mask logits (P, Q, H, W).

        The projection of the pixels is brought to the queries, which are fewer.
        """
        embedded = self.query_mlp(queries)
        weight, bias = self.pixel_project.weight[:, :, 0, 0], self.pixel_project.bias
        logits = (embedded @ weight) @ pixels.flatten(2) + (embedded @ bias)[..., None]
        return logits.unflatten(-1, pixels.shape[-2:])

    def laterals(self, finer: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the neck's finer maps bring to pixel embeddings, whatever the prompt; computed once per image.

        A stage convolves the sum of a finer map and the coarser embedding. A convolution is linear, so the map's share
        stands apart from the embedding's, see `embed_pixels`.

        Args:
            finer: Maps (B, C, s * h, s * w), for s = 4, 2.

        Returns:
            (B, C, s * h, s * w) for s = 2, 4, in the order of the stages.
        """
        return tuple(
            convolution(finer_map) for finer_map, convolution in zip(reversed(finer), self.convolutions, strict=False)
        )

    def doubling_kernels(self) -> tuple[Tensor, ...]:
        """The `doubling_kernel` of each stage."""
        return tuple(doubling_kernel(convolution.weight) for convolution in self.convolutions)

    def embed_pixels(
        self,
        laterals: Sequence[Tensor],
        kernels: Sequence[Tensor],
        grid: tuple[int, int],
        encoded: Tensor,
        prompt: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Pixel embeddings of each prompt.

        Args:
            laterals: From `laterals`, a row a prompt.
            kernels: From `doubling_kernels`.
            grid: (h, w).
            encoded: (P, h * w, C), from the encoder.
            prompt: (P, M, C).
            valid: bool (P, M).

        Returns:
            (P, C, H, W), at the resolution of the finest lateral, before `pixel_project`.
        """
        encoded = encoded + self.prompt_attention(self.prompt_norm(encoded), prompt, prompt, visible(valid))
        x = encoded.transpose(1, 2).unflatten(-1, grid)
        for lateral, kernel, norm in zip(laterals, kernels, self.norms, strict=False):
            x = F.conv_transpose2d(x, kernel, stride=2, padding=1)
            x = F.relu(norm(x.add_(lateral)), inplace=True)  # nothing else in the network is as large
        return x


def doubling_kernel(weight: Tensor) -> Tensor:
    """The transposed convolution that does as "repeat each pixel 2 x 2, then convolve 3 x 3", in 4/9 of the work.

    Of the three pixels that a row of the kernel touches, two are copies of one: their weights are added beforehand.

    Args:
        weight: (out, in, 3, 3), of a convolution with padding 1.

    Returns:
        (in, out, 4, 4), for `torch.nn.functional.conv_transpose2d` with stride 2 and padding 1.
    """
    across = torch.tensor([[0.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], device=weight.device)
    kernel = weight.float().flatten(2) @ torch.kron(across, across)  # (out, in, 16)
    kernel = kernel.to(weight.dtype).permute(1, 2, 0).contiguous()  # in this order: channels last
    return kernel.unflatten(1, (4, 4)).permute(0, 3, 1, 2)

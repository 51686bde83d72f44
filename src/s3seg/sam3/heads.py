"""The output heads: a matching score per query, and a mask per query.

They follow ``DotProductScoring`` (``sam3/model/model_misc.py``) and ``UniversalSegmentationHead``
(``sam3/model/maskformer_segmentation.py``) of the reference implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config
from s3seg.sam3.kernels import group_norm
from s3seg.sam3.layers import MLP, Attention, attention_mask

SCORE_LIMIT = 12.0


class Scoring(nn.Module):
    """Scores each query by its dot product with the mean-pooled prompt; always computed in fp32."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        channels = config.channels
        self.prompt_mlp = MLP(channels, config.decoder.mlp_width, channels)
        self.prompt_norm = nn.LayerNorm(channels)
        self.prompt_project = nn.Linear(channels, channels)
        self.query_project = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, prompt: Tensor, valid: Tensor | None) -> Tensor:
        """Score queries (P, Q, C) by prompts (P, M, C).

        Args:
            queries: (P, Q, C).
            prompt: (P, M, C).
            valid: bool (P, M), False where a prompt token is padding; None without padding.

        Returns:
            Logits, fp32 (P, Q), within +/- `SCORE_LIMIT`.
        """
        queries, prompt = queries.float(), prompt.float()
        prompt = self.prompt_norm(prompt + self.prompt_mlp(prompt))
        if valid is None:
            pooled = prompt.mean(1)  # (P, C)
        else:
            weight = valid.float()[..., None]
            pooled = (prompt * weight).sum(1) / weight.sum(1).clamp(min=1)
        logits = self.query_project(queries) @ self.prompt_project(pooled)[..., None]
        return (logits[..., 0] / queries.shape[-1] ** 0.5).clamp(-SCORE_LIMIT, SCORE_LIMIT)


class MaskHead(nn.Module):
    """Masks as dot products of query embeddings and pixel embeddings, at 4 times the patch grid (MaskFormer)."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        channels = config.channels
        self.prompt_norm = nn.LayerNorm(channels)
        self.prompt_attention = Attention(channels, config.mask_heads)
        # The neck has three maps, so two stages run. The full-size checkpoint holds a third stage, which is never used.
        convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.mask_stages))
        self.convolutions = cast("Sequence[nn.Conv2d]", convolutions)
        norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(config.mask_stages))
        self.norms = cast("Sequence[nn.GroupNorm]", norms)
        self.pixel_project = nn.Conv2d(channels, channels, 1)
        self.query_mlp = MLP(channels, channels, channels, channels)

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Queries (P, Q, C), pixels (P, C, H, W) from `embed_pixels` -> mask logits (P, Q, H, W).

        The linear projection of the pixels is applied to the queries instead, because there are fewer of them. Models
        in fp16 compute the products in fp32: they are sums over all channels of values that nothing normalizes, and
        fp16 ends at 65,504.
        """
        embedded = self.query_mlp(queries)
        weight, bias = self.pixel_project.weight[:, :, 0, 0], self.pixel_project.bias
        if queries.dtype == torch.float16:
            embedded, weight, bias, pixels = (
                embedded.float(),
                weight.float(),
                cast("Tensor", bias).float(),
                pixels.float(),
            )
        logits = (embedded @ weight) @ pixels.flatten(2) + (embedded @ bias)[..., None]
        return logits.unflatten(-1, pixels.shape[-2:])

    def laterals(self, finer: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Convolve the neck's finer maps: the part of the pixel decoder that depends on the image only.

        A stage convolves the sum of a finer map and the upsampled coarser embedding. Convolution is linear, so the
        map can be convolved by itself, once per image; `embed_pixels` adds the rest for each prompt.

        Args:
            finer: Feature maps (B, C, s * h, s * w), for s = 4, 2.

        Returns:
            (B, C, s * h, s * w) for s = 2, 4, in the order of the stages.
        """
        return tuple(
            convolution(finer_map) for finer_map, convolution in zip(reversed(finer), self.convolutions, strict=False)
        )

    def doubling_kernels(self) -> tuple[Tensor, ...]:
        """Return the `doubling_kernel` of each stage, each (C, C, 4, 4)."""
        return tuple(doubling_kernel(convolution.weight) for convolution in self.convolutions)

    def embed_pixels(
        self,
        laterals: Sequence[Tensor],
        kernels: Sequence[Tensor],
        grid: tuple[int, int],
        encoded: Tensor,
        prompt: Tensor,
        valid: Tensor | None,
    ) -> Tensor:
        """Compute the pixel embeddings for each prompt.

        Args:
            laterals: The result of `laterals`, with one row per prompt.
            kernels: The result of `doubling_kernels`.
            grid: The patch grid, (h, w).
            encoded: Image tokens from the encoder, (P, h * w, C).
            prompt: Prompt tokens, (P, M, C).
            valid: bool (P, M), False where a prompt token is padding; None without padding.

        Returns:
            (P, C, H, W) at the resolution of the finest lateral, before `pixel_project`.
        """
        encoded = encoded + self.prompt_attention(self.prompt_norm(encoded), prompt, prompt, attention_mask(valid))
        x = encoded.transpose(1, 2).unflatten(-1, grid)
        for lateral, kernel, norm in zip(laterals, kernels, self.norms, strict=False):
            x = F.conv_transpose2d(x, kernel, stride=2, padding=1)
            # in place: the largest tensors of the network
            x = F.relu(group_norm(x.add_(lateral), norm), inplace=True)
        return x


def doubling_kernel(weight: Tensor) -> Tensor:
    """Fuse nearest-neighbor upsampling by 2 and a 3 x 3 convolution into one transposed convolution.

    After upsampling, each pixel appears 2 x 2 times, so two of the three weights in a row of the kernel always meet
    the same value and can be added in advance. What remains takes 4/9 of the multiply-adds.

    Args:
        weight: (out, in, 3, 3), the weight of a convolution with padding 1.

    Returns:
        (in, out, 4, 4), for `torch.nn.functional.conv_transpose2d` with stride 2 and padding 1.
    """
    place = torch.arange(4, device=weight.device)  # made where it is used: a copy from the CPU would wait for a GPU
    across = ((place + place[:3, None]) // 2 == 1).float()  # rows 0011, 0110, 1100
    kernel = weight.float().flatten(2) @ torch.kron(across, across)  # (out, in, 16)
    kernel = kernel.to(weight.dtype).permute(1, 2, 0).contiguous()  # channels last
    return kernel.unflatten(1, (4, 4)).permute(0, 3, 1, 2)

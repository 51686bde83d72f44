"""The mask decoder of the click head: prompt tokens and image tokens attend to each other, and give masks.

Follows ``MaskDecoder`` (``sam3/sam/mask_decoder.py``) and ``TwoWayTransformer`` (``sam3/sam/transformer.py``) of the
reference implementation, which are those of SAM 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.click_prompts import ChannelNorm
from s3seg.sam3.config import ClickConfig
from s3seg.sam3.layers import MLP, attention_mask

_LAYERS = 2


@dataclass(frozen=True, slots=True)
class ClickPredictions:
    """The masks of N objects: the first for prompts that leave no doubt, the others as alternatives for few clicks."""

    mask_logits: Tensor
    """(N, 1 + alternatives, 4h, 4w)"""
    ious: Tensor
    """fp32 (N, 1 + alternatives): the predicted IoU of each mask with the object, 0..1."""
    object_logits: Tensor
    """fp32 (N,): whether there is an object at all."""


class ClickDecoder(nn.Module):
    """Predicts the masks of N objects, their IoUs, and whether there is an object."""

    def __init__(self, config: ClickConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        masks = 1 + config.alternatives
        self.object_token = nn.Parameter(torch.zeros(1, channels))
        self.iou_token = nn.Parameter(torch.zeros(1, channels))
        self.mask_tokens = nn.Parameter(torch.zeros(masks, channels))
        self.layers = nn.ModuleList(TwoWayLayer(config, channels, first=i == 0) for i in range(_LAYERS))
        self.final_attention = TwoWayAttention(channels, channels // config.downsample, config.heads)
        self.final_norm = nn.LayerNorm(channels)
        self.up1 = nn.ConvTranspose2d(channels, channels // 4, 2, 2)
        self.up_norm = ChannelNorm(channels // 4)
        self.up2 = nn.ConvTranspose2d(channels // 4, channels // 8, 2, 2)
        self.mask_mlps = nn.ModuleList(MLP(channels, channels, channels, channels // 8) for _ in range(masks))
        self.iou_head = MLP(channels, config.iou_width, config.iou_width, masks)
        self.object_head = MLP(channels, channels, channels, 1)

    def forward(
        self,
        image: Tensor,
        positions: Tensor,
        finer: tuple[Tensor, Tensor],
        grid: tuple[int, int],
        prompt: Tensor,
        valid: Tensor | None,
    ) -> ClickPredictions:
        """Predict the masks of N objects.

        Args:
            image: Image tokens with the encoded masks added, (N, h * w, C); (1, h * w, C) if they are the same for all.
            positions: Their position encodings, (h * w, C).
            finer: Feature maps (1, C / 4, 2h, 2w) and (1, C / 8, 4h, 4w).
            grid: The patch grid, (h, w).
            prompt: Prompt tokens, (N, M, C).
            valid: bool (N, M), False where a token is padding; None if none is.
        """
        outputs = torch.cat([self.object_token, self.iou_token, self.mask_tokens]).expand(len(prompt), -1, -1)
        positions_of_tokens = tokens = torch.cat([outputs, prompt], dim=1)
        mask = None if valid is None else attention_mask(F.pad(valid, (outputs.shape[1], 0), value=True))
        for layer in self.layers:
            tokens, image = layer(tokens, image, positions_of_tokens, positions, mask)
        attended = self.final_attention(tokens + positions_of_tokens, image + positions, image)
        tokens = self.final_norm(tokens + attended)

        half, quarter = finer
        pixels = image.transpose(1, 2).unflatten(-1, grid)
        pixels = F.gelu(self.up_norm(self.up1(pixels) + half))
        pixels = F.gelu(self.up2(pixels) + quarter)  # (N, C / 8, 4h, 4w)
        embedded = torch.stack([mlp(tokens[:, 2 + i]) for i, mlp in enumerate(self.mask_mlps)], dim=1)
        logits = (embedded @ pixels.flatten(2)).unflatten(-1, pixels.shape[-2:])
        return ClickPredictions(
            logits, self.iou_head(tokens[:, 1]).float().sigmoid(), self.object_head(tokens[:, 0])[:, 0].float()
        )

    def single(self, predictions: ClickPredictions) -> tuple[Tensor, Tensor]:
        """Choose one mask for each object whose prompt leaves no doubt: (N, 4h, 4w), and its IoU (N,).

        It is the first mask; or, where that is not stable when its threshold is moved a little, the alternative with
        the highest IoU.
        """
        first, ious = predictions.mask_logits[:, 0], predictions.ious[:, 0]
        if not self.config.replace_unstable:
            return first, ious
        flat, delta = first.flatten(1).float(), self.config.stability_delta
        inside, around = (flat > delta).sum(1), (flat > -delta).sum(1)
        stable = inside / around.clamp(min=1) >= self.config.stability_threshold
        stable |= around == 0  # an empty mask
        best, best_ious = self.best(predictions)
        return torch.where(stable[:, None, None], first, best), torch.where(stable, ious, best_ious)

    def best(self, predictions: ClickPredictions) -> tuple[Tensor, Tensor]:
        """Choose the alternative with the highest IoU for each object: (N, 4h, 4w), and its IoU (N,)."""
        chosen = predictions.ious[:, 1:].argmax(1) + 1
        rows = torch.arange(len(chosen), device=chosen.device)
        return predictions.mask_logits[rows, chosen], predictions.ious[rows, chosen]


class TwoWayLayer(nn.Module):
    """Tokens attend to each other and to the image, then the image attends to the tokens; post-norm."""

    def __init__(self, config: ClickConfig, channels: int, *, first: bool) -> None:
        super().__init__()
        self.first = first  # whose tokens are their own positions
        inner = channels // config.downsample
        self.self_attention = TwoWayAttention(channels, channels, config.heads)
        self.norm1 = nn.LayerNorm(channels)
        self.image_attention = TwoWayAttention(channels, inner, config.heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, config.mlp_width, channels)
        self.norm3 = nn.LayerNorm(channels)
        self.token_attention = TwoWayAttention(channels, inner, config.heads)
        self.norm4 = nn.LayerNorm(channels)

    def forward(
        self, tokens: Tensor, image: Tensor, token_positions: Tensor, positions: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N, M, C), image (N or 1, h * w, C), their positions, bool mask (N, 1, 1, M) -> both."""
        if self.first:
            tokens = self.self_attention(tokens, tokens, tokens, mask)
        else:
            x = tokens + token_positions
            tokens = tokens + self.self_attention(x, x, tokens, mask)
        tokens = self.norm1(tokens)
        keys = image + positions
        tokens = self.norm2(tokens + self.image_attention(tokens + token_positions, keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.token_attention(keys, tokens + token_positions, tokens, mask))
        return tokens, image


class TwoWayAttention(nn.Module):
    """Multi-head attention with an inner width of its own, where queries or keys may be the same for all objects."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, inner)
        self.k = nn.Linear(width, inner)
        self.v = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Query (N or 1, A, C), key and value (N or 1, B, C), bool mask (N, 1, 1, B) -> (N, A, C)."""
        rows = max(len(query), len(key))
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(rows, -1, -1, -1)
            for projected in (self.q(query), self.k(key), self.v(value))
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (N, heads, A, inner / heads)
        return self.out(attended.transpose(1, 2).flatten(2))

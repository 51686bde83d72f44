"""The DETR encoder: image tokens attend to the prompt tokens.

Follows ``TransformerEncoderFusion`` in ``sam3/model/encoder.py`` of the reference implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from s3seg.sam3.config import Sam3Config, TransformerConfig
from s3seg.sam3.layers import MLP, Attention, attention_mask


class Encoder(nn.Module):
    """Conditions the image tokens on a prompt."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        layers = nn.ModuleList(EncoderLayer(config.channels, config.encoder) for _ in range(config.encoder.depth))
        self.layers = cast("Sequence[EncoderLayer]", layers)

    def first_self_attention(self, image: Tensor, positions: Tensor) -> Tensor:
        """Run the first layer's self-attention. It precedes the prompt, so it is computed once per image.

        Args:
            image: Image tokens from the neck, (B, h * w, C).
            positions: Their position encodings, (h * w, C).

        Returns:
            (B, h * w, C), the input of `forward`.
        """
        return self.layers[0].self_attend(image, positions)

    def forward(self, image: Tensor, positions: Tensor, prompt: Tensor, valid: Tensor | None) -> Tensor:
        """Run the rest of the encoder for each prompt.

        Args:
            image: Image tokens from `first_self_attention`, (P, h * w, C).
            positions: Their position encodings, (h * w, C).
            prompt: Prompt tokens, (P, M, C).
            valid: bool (P, M), False where a prompt token is padding; None without padding.

        Returns:
            (P, h * w, C)
        """
        mask = attention_mask(valid)
        first, *others = self.layers
        image = first.cross_attend(image, prompt, mask)
        for layer in others:
            image = layer.cross_attend(layer.self_attend(image, positions), prompt, mask)
        return image


class EncoderLayer(nn.Module):
    """Self-attention of the image tokens, then cross-attention to the prompt and an MLP; pre-norm."""

    def __init__(self, channels: int, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, config.heads)
        self.norm2 = nn.LayerNorm(channels)
        self.prompt_attention = Attention(channels, config.heads)
        self.norm3 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, config.mlp_width, channels)

    def self_attend(self, image: Tensor, positions: Tensor) -> Tensor:
        """Self-attention: image (P, h * w, C), positions (h * w, C) -> (P, h * w, C)."""
        x = self.norm1(image)
        return image + self.self_attention(x + positions, x + positions, x)

    def cross_attend(self, image: Tensor, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """Cross-attention and MLP: image (P, h * w, C), prompt (P, M, C), mask of the prompt -> (P, h * w, C)."""
        image = image + self.prompt_attention(self.norm2(image), prompt, prompt, mask)
        return image + self.mlp(self.norm3(image))

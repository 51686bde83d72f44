"""The DETR encoder: image tokens take in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from s3seg.sam3.config import Sam3Config, TransformerConfig
from s3seg.sam3.layers import MLP, Attention, visible


class Encoder(nn.Module):
    """Image tokens conditioned on a prompt."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        layers = nn.ModuleList(EncoderLayer(config.channels, config.encoder) for _ in range(config.encoder.depth))
        self.layers = cast("Sequence[EncoderLayer]", layers)

    def before_prompt(self, image: Tensor, positions: Tensor) -> Tensor:
        """What comes before the first look at a prompt, and so is computed once per image.

        Args:
            image: (B, h * w, C), from the neck.
            positions: (h * w, C).

        Returns:
            (B, h * w, C)
        """
        return self.layers[0].attend_to_itself(image, positions)

    def forward(self, image: Tensor, positions: Tensor, prompt: Tensor, valid: Tensor) -> Tensor:
        """Condition each prompt's image tokens on it.

        Args:
            image: (P, h * w, C), from `before_prompt`.
            positions: (h * w, C).
            prompt: (P, M, C).
            valid: bool (P, M), False where a prompt token is padding.

        Returns:
            (P, h * w, C)
        """
        mask = visible(valid)
        first, *others = self.layers
        image = first.attend_to_prompt(image, prompt, mask)
        for layer in others:
            image = layer.attend_to_prompt(layer.attend_to_itself(image, positions), prompt, mask)
        return image


class EncoderLayer(nn.Module):
    """Image tokens see each other, then the prompt."""

    def __init__(self, channels: int, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, config.heads)
        self.norm2 = nn.LayerNorm(channels)
        self.prompt_attention = Attention(channels, config.heads)
        self.norm3 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, config.mlp_width, channels)

    def attend_to_itself(self, image: Tensor, positions: Tensor) -> Tensor:
        """image (P, h * w, C), positions (h * w, C) -> (P, h * w, C)."""
        x = self.norm1(image)
        return image + self.self_attention(x + positions, x + positions, x)

    def attend_to_prompt(self, image: Tensor, prompt: Tensor, mask: Tensor) -> Tensor:
        """image (P, h * w, C), prompt (P, M, C), mask (P, 1, 1, M) -> (P, h * w, C)."""
        image = image + self.prompt_attention(self.norm2(image), prompt, prompt, mask)
        return image + self.mlp(self.norm3(image))

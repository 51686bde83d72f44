"""The text encoder of SAM 3: a causal CLIP text transformer, projected to the width of the detector.

Follows ``sam3/model/text_encoder_ve.py`` of the reference implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config, TextConfig


class TextEncoder(nn.Module):
    """Encodes token ids as prompt tokens.

    Attention is causal, so a token never attends to the padding after it: no mask is needed here, and cutting a text
    to its real length changes no value. (The rest of the network does need a mask.)
    """

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        text = config.text
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.position_embedding = nn.Parameter(torch.zeros(text.context, text.width))
        self.layers = nn.ModuleList(TextLayer(text) for _ in range(text.depth))
        self.norm = nn.LayerNorm(text.width, text.norm_eps)
        self.project = nn.Linear(text.width, config.channels)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids, int64 (P, T) with T up to the context length -> (P, T, channels)."""
        x = self.token_embedding(token_ids) + self.position_embedding[: token_ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.project(self.norm(x))


class TextLayer(nn.Module):
    """Causal self-attention, then an MLP; pre-norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, config.norm_eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (P, T, width) -> (P, T, width)."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # (P, T, 3, heads, width / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

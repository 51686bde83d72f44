"""The text encoder of SAM 3: a causal CLIP text transformer, projected to the width of the detector.

Follows ``sam3/model/text_encoder_ve.py`` of the reference implementation. `TextEncoder` is the interface that it shares
with the light text encoder in `s3seg.sam3.lite_text`.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import TextConfig


class TextEncoder(nn.Module, abc.ABC):
    """Encodes token ids as prompt tokens. The configuration decides which of the subclasses a model has."""

    @abc.abstractmethod
    def forward(self, token_ids: Tensor) -> Tensor:
        """Encode a batch of texts.

        The encoding of a text does not depend on the other texts of the batch, nor on how far they are padded.

        Args:
            token_ids: int64 (P, T), with T up to the context length: start token, text, end token, then padding (0).

        Returns:
            (P, T, channels). Values at padding have no meaning, and have to be masked wherever they are used.
        """


class ClipTextEncoder(TextEncoder):
    """The text encoder of SAM 3.

    Attention is causal, so a token never attends to the padding after it, and no mask is needed here.
    """

    def __init__(self, config: TextConfig, channels: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.zeros(config.context, config.width))
        self.layers = nn.ModuleList(
            TextLayer(config.width, config.heads, config.mlp_width, config.norm_eps, causal=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.project = nn.Linear(config.width, channels)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids, int64 (P, T) -> (P, T, channels); see `TextEncoder.forward`."""
        x = self.token_embedding(token_ids) + self.position_embedding[: token_ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.project(self.norm(x))


class TextLayer(nn.Module):
    """Self-attention, then an MLP; pre-norm."""

    def __init__(self, width: int, heads: int, mlp_width: int, norm_eps: float, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.norm1 = nn.LayerNorm(width, norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, norm_eps)
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (P, T, width) -> (P, T, width)."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # (P, T, 3, heads, width / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

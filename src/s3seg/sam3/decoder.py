"""The DETR decoder: object queries refine their boxes layer by layer; a presence token predicts whether there are any.

Follows ``sam3/model/decoder.py`` of the reference implementation, and the detector of the SAM 3 paper (Carion et al.,
2025). Shapes: P prompts, Q queries, M prompt tokens, C channels, h x w the patch grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config, TransformerConfig
from s3seg.sam3.layers import MLP, Attention, attention_mask, cxcywh_to_xyxy, inverse_sigmoid
from s3seg.sam3.positions import encode_boxes

PRESENCE_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class DecoderState:
    """Presence token, queries and boxes between two steps of the decoder."""

    tokens: Tensor
    """(P, 1 + Q, C): the presence token, then the queries."""
    boxes_cxcywh: Tensor
    """fp32 (P, Q, 4), normalized to the image, 0..1."""
    positions: Tensor
    """(P, 1 + Q, C): position encodings of the boxes; zero for the presence token."""
    attention_bias: Tensor
    """(P, heads, 1 + Q, h * w), added to the attention logits from each token to each image cell."""


@dataclass(frozen=True, slots=True)
class DecoderOutput:
    """The output of one decoder layer."""

    queries: Tensor
    """(P, Q, C), after the output layer norm."""
    boxes_cxcywh: Tensor
    """fp32 (P, Q, 4), normalized to the image, 0..1."""
    presence_token: Tensor
    """(P, C), the input of `Decoder.presence_logits`."""


class Decoder(nn.Module):
    """DETR decoder with learned reference boxes, iterative box refinement and a box-relative position bias.

    Boxes, their sine encodings, the position bias and the presence head are computed in fp32 whatever the precision
    of the model: a cell of the full-size grid is 1/72 of the image, and bf16 resolves about 1/256.
    """

    FP32 = (  # submodules and parameters that stay fp32
        "reference_boxes",
        "box_head",
        "box_position",
        "bias_x",
        "bias_y",
        "presence_head",
        "presence_norm",
    )

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        channels, heads = config.channels, config.decoder.heads
        self.query_embedding = nn.Parameter(torch.zeros(config.queries, channels))
        self.reference_boxes = nn.Parameter(torch.zeros(config.queries, 4))  # cxcywh before the sigmoid
        self.presence_token = nn.Parameter(torch.zeros(1, channels))
        layers = nn.ModuleList(DecoderLayer(channels, config.decoder) for _ in range(config.decoder.depth))
        self.layers = cast("Sequence[DecoderLayer]", layers)
        self.norm = nn.LayerNorm(channels)
        self.box_head = MLP(channels, channels, channels, 4)
        self.box_position = MLP(2 * channels, channels, channels)
        self.bias_x = MLP(2, channels, heads)
        self.bias_y = MLP(2, channels, heads)
        self.presence_norm = nn.LayerNorm(channels)
        self.presence_head = MLP(channels, channels, channels, 1)

    def initial_state(self, grid: tuple[int, int]) -> DecoderState:
        """Compute what the first layer does before its cross-attention to the prompt.

        It depends on neither image nor prompt, so it is computed once per patch grid.

        Args:
            grid: The patch grid, (h, w).

        Returns:
            The state after the first self-attention, with P = 1.
        """
        tokens = torch.cat([self.presence_token, self.query_embedding])[None]
        boxes = self.reference_boxes.sigmoid()[None]
        positions, bias = self._encode_boxes(boxes, grid, tokens.dtype)
        return DecoderState(self.layers[0].self_attend(tokens, positions), boxes, positions, bias)

    def forward(
        self,
        image: Tensor,
        positions: Tensor,
        grid: tuple[int, int],
        prompt: Tensor,
        valid: Tensor | None,
        initial: DecoderState,
    ) -> Iterator[DecoderOutput]:
        """Yield the output of each layer. Inference uses the last one; training has a loss on all of them.

        Args:
            image: Image tokens from the encoder, (P, h * w, C).
            positions: Position encodings of the image tokens, (h * w, C).
            grid: The patch grid, (h, w).
            prompt: Prompt tokens, (P, M, C).
            valid: bool (P, M), False where a prompt token is padding; None without padding.
            initial: The result of `initial_state` for this grid.
        """
        mask, keys = attention_mask(valid), image + positions
        tokens, boxes = initial.tokens.expand(image.shape[0], -1, -1), initial.boxes_cxcywh
        token_positions, bias = initial.positions, initial.attention_bias
        for number, layer in enumerate(self.layers):
            if number:
                token_positions, bias = self._encode_boxes(boxes, grid, tokens.dtype)
                tokens = layer.self_attend(tokens, token_positions)
            tokens = layer(tokens, token_positions, prompt, mask, keys, image, bias)
            queries = self.norm(tokens[:, 1:])
            refined = (inverse_sigmoid(boxes) + self.box_head(queries.float())).sigmoid()
            yield DecoderOutput(queries, refined, tokens[:, 0])
            boxes = refined.detach()

    def presence_logits(self, token: Tensor) -> Tensor:
        """Predict whether the concept is in the image: (P, C) -> fp32 (P,), clamped to +/- `PRESENCE_LIMIT`."""
        logits = self.presence_head(self.presence_norm(token.float()))[..., 0]
        return logits.clamp(-PRESENCE_LIMIT, PRESENCE_LIMIT)

    def _encode_boxes(self, boxes_cxcywh: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Boxes (P, Q, 4) -> position encodings (P, 1 + Q, C) and attention bias (P, heads, 1 + Q, h * w).

        Both are zero for the presence token.
        """
        codes = encode_boxes(boxes_cxcywh, self.query_embedding.shape[-1])
        positions = F.pad(self.box_position(codes).to(dtype), (0, 0, 1, 0))
        return positions, self._position_bias(boxes_cxcywh, grid).to(dtype)

    def _position_bias(self, boxes_cxcywh: Tensor, grid: tuple[int, int]) -> Tensor:
        """Bias from each token to each cell, by the offsets of the cell to the box edges: (P, heads, 1 + Q, h * w).

        It is contiguous: the fast attention kernels of CUDA refuse a bias whose last dimension is strided.
        """
        height, width = grid
        device = boxes_cxcywh.device
        x = torch.arange(width, device=device) / width
        y = torch.arange(height, device=device) / height
        corners = cxcywh_to_xyxy(boxes_cxcywh)
        to_x = x[:, None] - corners[:, :, None, 0::2]  # (P, Q, w, 2): offsets to the left and right edge
        to_y = y[:, None] - corners[:, :, None, 1::2]  # (P, Q, h, 2): offsets to the top and bottom edge
        bias_x = _head_first(self.bias_x(_log_scale(to_x)))  # (P, heads, 1 + Q, w)
        bias_y = _head_first(self.bias_y(_log_scale(to_y)))  # (P, heads, 1 + Q, h)
        return (bias_y[..., None] + bias_x[..., None, :]).flatten(3)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the prompt, cross-attention to the image, MLP; post-norm."""

    def __init__(self, channels: int, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = Attention(channels, config.heads)
        self.self_norm = nn.LayerNorm(channels)
        self.prompt_attention = Attention(channels, config.heads)
        self.prompt_norm = nn.LayerNorm(channels)
        self.image_attention = Attention(channels, config.heads)
        self.image_norm = nn.LayerNorm(channels)
        self.mlp = MLP(channels, config.mlp_width, channels)
        self.mlp_norm = nn.LayerNorm(channels)

    def self_attend(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Self-attention: tokens and positions (P, 1 + Q, C) -> (P, 1 + Q, C)."""
        q = tokens + positions
        return self.self_norm(tokens + self.self_attention(q, q, tokens))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        prompt: Tensor,
        mask: Tensor | None,
        keys: Tensor,
        image: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """The rest of the layer, after `self_attend`.

        Args:
            tokens: (P, 1 + Q, C).
            positions: (P, 1 + Q, C), or (1, 1 + Q, C) for all prompts.
            prompt: (P, M, C).
            mask: bool (P, 1, 1, M), False where a prompt token is padding; None without padding.
            keys: Image tokens with their position encodings, (P, h * w, C).
            image: Image tokens, (P, h * w, C).
            bias: (P, heads, 1 + Q, h * w), or (1, heads, 1 + Q, h * w) for all prompts.

        Returns:
            (P, 1 + Q, C)
        """
        tokens = self.prompt_norm(tokens + self.prompt_attention(tokens + positions, prompt, prompt, mask))
        tokens = self.image_norm(tokens + self.image_attention(tokens + positions, keys, image, bias))
        return self.mlp_norm(tokens + self.mlp(tokens))


def _head_first(bias: Tensor) -> Tensor:
    """(P, Q, cells, heads) -> contiguous (P, heads, 1 + Q, cells), with zeros for the presence token."""
    return F.pad(bias.permute(0, 3, 1, 2).contiguous(), (0, 0, 1, 0))


def _log_scale(distance: Tensor) -> Tensor:
    """Compress offsets (in image sides) logarithmically, so that small ones keep the most resolution."""
    return distance.sign() * torch.log2(distance.abs() * 8 + 1) / math.log2(8)

"""The DETR decoder: queries become objects, layer by layer, and a presence token says whether there are any."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config, TransformerConfig
from s3seg.sam3.layers import MLP, Attention, cxcywh_to_xyxy, inverse_sigmoid, visible
from s3seg.sam3.positions import encode_boxes

PRESENCE_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """How all decoding begins, whatever the picture and the prompt."""

    x: Tensor
    """(1, 1 + Q, C): the presence token and the queries, which have seen each other."""
    boxes_cxcywh: Tensor
    """fp32 (1, Q, 4), normalised to the image, 0..1."""
    positions: Tensor
    """(1, 1 + Q, C), of the boxes."""
    bias: Tensor
    """(1, heads, 1 + Q, h * w): how much each looks at each cell."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one layer of the decoder says."""

    queries: Tensor
    """(P, Q, C), normalised."""
    boxes_cxcywh: Tensor
    """fp32 (P, Q, 4), normalised to the image, 0..1."""
    presence_token: Tensor
    """(P, C), for :meth:`Decoder.presence_logits`."""


class Decoder(nn.Module):
    """Queries that start from learned boxes and refine them.

    Boxes, their sine codes, the position bias and the presence head are fp32 in every precision: a cell of the
    full-size grid is 1/72 of the image, and bf16 tells about 1/256 apart.
    """

    FP32 = (
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

    def start(self, grid: tuple[int, int]) -> Start:
        """What the first layer does before it looks at a prompt, for a patch grid (h, w)."""
        x = torch.cat([self.presence_token, self.query_embedding])[None]
        boxes = self.reference_boxes.sigmoid()[None]
        positions, bias = self._place(boxes, grid, x.dtype)
        return Start(self.layers[0].attend_to_queries(x, positions), boxes, positions, bias)

    def forward(
        self, image: Tensor, positions: Tensor, grid: tuple[int, int], prompt: Tensor, valid: Tensor, start: Start
    ) -> Iterator[Decoded]:
        """Yield what each layer says; inference takes the last, training learns from all.

        Args:
            image: (P, h * w, C), from the encoder.
            positions: (h * w, C).
            grid: (h, w).
            prompt: (P, M, C).
            valid: bool (P, M).
            start: From `start`.
        """
        mask, keys = visible(valid), image + positions
        x, boxes = start.x.expand(len(image), -1, -1), start.boxes_cxcywh
        query_positions, bias = start.positions, start.bias
        for number, layer in enumerate(self.layers):
            if number:
                query_positions, bias = self._place(boxes, grid, x.dtype)
                x = layer.attend_to_queries(x, query_positions)
            x = layer(x, query_positions, prompt, mask, keys, image, bias)
            queries = self.norm(x[:, 1:])
            refined = (inverse_sigmoid(boxes) + self.box_head(queries.float())).sigmoid()
            yield Decoded(queries, refined, x[:, 0])
            boxes = refined.detach()

    def presence_logits(self, token: Tensor) -> Tensor:
        """Whether the concept is in the image: (P, C) -> fp32 (P,)."""
        logits = self.presence_head(self.presence_norm(token.float()))[..., 0]
        return logits.clamp(-PRESENCE_LIMIT, PRESENCE_LIMIT)

    def _place(self, boxes_cxcywh: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Where boxes (P, Q, 4) are: positions (P, 1 + Q, C) of their queries, and bias (P, heads, 1 + Q, h * w).

        The presence token has no position, and sees all cells alike.
        """
        codes = encode_boxes(boxes_cxcywh, self.query_embedding.shape[-1])
        positions = F.pad(self.box_position(codes).to(dtype), (0, 0, 1, 0))
        return positions, F.pad(self._position_bias(boxes_cxcywh, grid).to(dtype), (0, 0, 1, 0))

    def _position_bias(self, boxes_cxcywh: Tensor, grid: tuple[int, int]) -> Tensor:
        """How much each query looks at each cell, given where the cell is to its box: (P, heads, Q, h * w)."""
        height, width = grid
        device = boxes_cxcywh.device
        x = torch.arange(width, device=device) / width
        y = torch.arange(height, device=device) / height
        corners = cxcywh_to_xyxy(boxes_cxcywh)
        to_x = x[:, None] - corners[:, :, None, 0::2]  # (P, Q, w, 2): to the left and to the right edge
        to_y = y[:, None] - corners[:, :, None, 1::2]  # (P, Q, h, 2)
        bias_x, bias_y = self.bias_x(_log_scale(to_x)), self.bias_y(_log_scale(to_y))  # (P, Q, w or h, heads)
        bias = bias_y[:, :, :, None] + bias_x[:, :, None]  # (P, Q, h, w, heads)
        return bias.flatten(2, 3).permute(0, 3, 1, 2)


class DecoderLayer(nn.Module):
    """Queries see each other, the prompt, then the image; norms come after each sum."""

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

    def attend_to_queries(self, x: Tensor, positions: Tensor) -> Tensor:
        """x and positions (P, 1 + Q, C) -> (P, 1 + Q, C)."""
        q = x + positions
        return self.self_norm(x + self.self_attention(q, q, x))

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        prompt: Tensor,
        mask: Tensor,
        keys: Tensor,
        image: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """What follows `attend_to_queries`: x (P, 1 + Q, C), keys and image (P, h * w, C).

        Positions (P, 1 + Q, C) and bias (P, heads, 1 + Q, h * w); one row serves all prompts alike.
        """
        x = self.prompt_norm(x + self.prompt_attention(x + positions, prompt, prompt, mask))
        x = self.image_norm(x + self.image_attention(x + positions, keys, image, bias))
        return self.mlp_norm(x + self.mlp(x))


def _log_scale(distance: Tensor) -> Tensor:
    """Compress distances, in image sides, so that near ones are told apart best."""
    return distance.sign() * torch.log2(distance.abs() * 8 + 1) / math.log2(8)

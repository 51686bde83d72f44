"""The geometry encoder: box prompts, each positive or negative, become prompt tokens.

Follows ``SequenceGeometryEncoder`` in ``sam3/model/geometry_encoders.py`` of the reference implementation (the exemplar
encoder of the paper), without its point and mask prompts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config, TransformerConfig
from s3seg.sam3.layers import MLP, Attention, attention_mask, cxcywh_to_xyxy
from s3seg.sam3.positions import encode_points


class GeometryEncoder(nn.Module):
    """Encodes boxes as one token each, plus a CLS token; all of them attend to the image."""

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        channels = config.channels
        self.roi_size = config.roi_size
        self.label_embedding = nn.Parameter(torch.zeros(2, channels))  # negative, positive
        self.cls = nn.Parameter(torch.zeros(1, channels))
        self.coordinates = nn.Linear(4, channels)
        self.image_norm = nn.LayerNorm(channels)
        self.pool = nn.Conv2d(channels, channels, config.roi_size)
        self.position = nn.Linear(channels + 2, channels)
        self.project = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.ModuleList(GeometryLayer(channels, config.geometry) for _ in range(config.geometry.depth))
        self.output_norm = nn.LayerNorm(channels)

    def forward(
        self, boxes_cxcywh: Tensor, labels: Tensor, valid: Tensor, image: Tensor, image_positions: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Encode the boxes of each prompt.

        Args:
            boxes_cxcywh: fp32 (P, B, 4), normalized to the image, 0..1; B may be 0.
            labels: bool (P, B), True for a positive box.
            valid: bool (P, B), False where a row is padding.
            image: The neck's coarsest feature map for each prompt, (P, C, h, w).
            image_positions: Its position encodings, (h * w, C).

        Returns:
            Tokens (P, B + 1, C), of which the last is the CLS token, and which of them are real, bool (P, B + 1); None
            for B = 0, when all are.
        """
        prompts, boxes, _ = boxes_cxcywh.shape
        tokens = self.cls.expand(prompts, 1, -1)
        real = None
        if boxes:
            tokens = torch.cat([self._encode_boxes(boxes_cxcywh, labels, image), tokens], dim=1)
            real = F.pad(valid, (0, 1), value=True)
        tokens = self.norm(self.project(tokens))
        memory = image.flatten(2).transpose(1, 2)  # (P, h * w, C)
        for layer in self.layers:
            tokens = layer(tokens, memory, memory + image_positions, attention_mask(real))
        return self.output_norm(tokens), real

    def _encode_boxes(self, boxes_cxcywh: Tensor, labels: Tensor, image: Tensor) -> Tensor:
        dtype = image.dtype
        boxes = boxes_cxcywh.to(dtype)
        height, width = image.shape[-2:]
        normed = self.image_norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x1, y1, x2, y2 = cxcywh_to_xyxy(boxes_cxcywh).unbind(-1)
        # multiplied one by one: a tensor of the four sides would be copied to the device, and the host would wait
        corners = torch.stack([x1 * width, y1 * height, x2 * width, y2 * height], dim=-1)
        samples = max(height, width) // self.roi_size + 1  # enough for a box as large as the image
        regions = roi_align(normed, corners, self.roi_size, samples=samples)  # (P, B, C, roi, roi)
        pooled = self.pool(regions.flatten(0, 1)).view(*boxes.shape[:2], -1)
        centres = encode_points(boxes_cxcywh[..., :2], image.shape[1]).to(dtype)
        position = self.position(torch.cat([centres, boxes[..., 2:].flip(-1)], dim=-1))  # height before width
        return self.coordinates(boxes) + pooled + position + self.label_embedding[labels.long()]


class GeometryLayer(nn.Module):
    """Self-attention of the prompt tokens, then cross-attention to the image and an MLP; pre-norm."""

    def __init__(self, channels: int, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, config.heads)
        self.norm2 = nn.LayerNorm(channels)
        self.image_attention = Attention(channels, config.heads)
        self.norm3 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, config.mlp_width, channels)

    def forward(self, tokens: Tensor, memory: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (P, M, C), memory and keys (P, h * w, C), mask bool (P, 1, 1, M) or None -> (P, M, C)."""
        x = self.norm1(tokens)
        tokens = tokens + self.self_attention(x, x, x, mask)
        tokens = tokens + self.image_attention(self.norm2(tokens), keys, memory)
        return tokens + self.mlp(self.norm3(tokens))


def roi_align(features: Tensor, boxes_xyxy: Tensor, size: int, *, samples: int) -> Tensor:
    """Pool a feature map over each box into ``size`` x ``size`` bins, by averaging bilinear samples.

    Computes what torchvision's ``roi_align`` does with its defaults (``aligned=False``, adaptive sampling): a box is
    at least one cell wide, a bin takes ceil(side / size) samples along each side, and a sample more than one cell
    outside the map counts as zero. Bilinear interpolation is separable, so a bin is a weighted sum of the rows of the
    map, and then of its columns: two matrix products with shapes that do not depend on the boxes.

    Args:
        features: (P, C, h, w).
        boxes_xyxy: fp32 (P, B, 4), in cells of the map.
        size: Number of bins along each side.
        samples: The most samples that a bin of any box takes along a side.

    Returns:
        (P, B, C, size, size), in the dtype of ``features``.
    """
    height, width = features.shape[-2:]
    rows = _bin_weights(boxes_xyxy[..., 1], boxes_xyxy[..., 3], size, samples, height)  # (P, B, size, h)
    columns = _bin_weights(boxes_xyxy[..., 0], boxes_xyxy[..., 2], size, samples, width)  # (P, B, size, w)
    across_rows = torch.einsum("pbih,pchw->pbciw", rows, features.float())
    return torch.einsum("pbciw,pbjw->pbcij", across_rows, columns).to(features.dtype)


def _bin_weights(start: Tensor, end: Tensor, bins: int, samples: int, cells: int) -> Tensor:
    """The weight of each cell in each bin, along one axis of boxes (P, B): (P, B, bins, cells)."""
    length = (end - start).clamp(min=1.0)
    counts = torch.ceil(length / bins)[..., None, None]  # samples per bin; boxes differ
    sample = torch.arange(samples, device=start.device)
    bin_index = torch.arange(bins, device=start.device)
    offset = bin_index[:, None] + (sample + 0.5) / counts  # (P, B, bins, samples), in bins
    position = start[..., None, None] + offset * (length / bins)[..., None, None]
    counted = (sample < counts) & (position >= -1) & (position <= cells)
    distance = position.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=start.device)
    shares = (1 - distance.abs()).clamp(min=0)  # bilinear: (P, B, bins, samples, cells)
    return ((counted / counts)[..., None] * shares).sum(-2)

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
        self.roi_samples: int | None = None
        """The ``samples`` of `roi_align`. Training on a GPU sets it, so that its steps never wait for the device."""
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
    ) -> tuple[Tensor, Tensor]:
        """Encode the boxes of each prompt.

        Args:
            boxes_cxcywh: fp32 (P, B, 4), normalized to the image, 0..1; B may be 0.
            labels: bool (P, B), True for a positive box.
            valid: bool (P, B), False where a row is padding.
            image: The neck's coarsest feature map for each prompt, (P, C, h, w).
            image_positions: Its position encodings, (h * w, C).

        Returns:
            Tokens (P, B + 1, C), of which the last is the CLS token, and which of them are real, bool (P, B + 1).
        """
        prompts = len(boxes_cxcywh)
        tokens = self.cls.expand(prompts, 1, -1)
        if boxes_cxcywh.shape[1]:
            tokens = torch.cat([self._encode_boxes(boxes_cxcywh, labels, image), tokens], dim=1)
        valid = torch.cat([valid, valid.new_ones(prompts, 1)], dim=1)
        tokens = self.norm(self.project(tokens))
        memory = image.flatten(2).transpose(1, 2)  # (P, h * w, C)
        for layer in self.layers:
            tokens = layer(tokens, memory, memory + image_positions, attention_mask(valid))
        return self.output_norm(tokens), valid

    def _encode_boxes(self, boxes_cxcywh: Tensor, labels: Tensor, image: Tensor) -> Tensor:
        dtype = image.dtype
        boxes = boxes_cxcywh.to(dtype)
        height, width = image.shape[-2:]
        normed = self.image_norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        corners = cxcywh_to_xyxy(boxes_cxcywh) * boxes_cxcywh.new_tensor([width, height, width, height])
        regions = roi_align(normed, corners, self.roi_size, self.roi_samples)  # (P, B, C, roi, roi)
        pooled = self.pool(regions.flatten(0, 1)).view(*boxes.shape[:2], -1)
        centres = encode_points(boxes_cxcywh[..., :2], image.shape[1]).to(dtype)
        position = self.position(torch.cat([centres, boxes[..., [3, 2]]], dim=-1))  # height before width
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

    def forward(self, tokens: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Tokens (P, M, C), memory and keys (P, h * w, C), bool mask (P, 1, 1, M) -> (P, M, C)."""
        x = self.norm1(tokens)
        tokens = tokens + self.self_attention(x, x, x, mask)
        tokens = tokens + self.image_attention(self.norm2(tokens), keys, memory)
        return tokens + self.mlp(self.norm3(tokens))


def roi_align(features: Tensor, boxes_xyxy: Tensor, size: int, samples: int | None = None) -> Tensor:
    """Pool a feature map over each box into ``size`` x ``size`` bins, by averaging bilinear samples.

    Computes what torchvision's ``roi_align`` does with its defaults (``aligned=False``, adaptive sampling): a box is
    at least one cell wide, a bin takes ceil(side / size) samples along each side, and a sample more than one cell
    outside the map counts as zero. Written with ``grid_sample``, which runs on every device.

    Args:
        features: (P, C, h, w).
        boxes_xyxy: fp32 (P, B, 4), in cells of the map.
        size: Number of bins along each side.
        samples: The most samples that a bin takes along a side: ceil(longest side of a box / size), or more. None
            computes it from the boxes, which waits for the device.

    Returns:
        (P, B, C, size, size), in the dtype of ``features``.
    """
    height, width = features.shape[-2:]
    x, x_weight = _bin_samples(boxes_xyxy[..., 0], boxes_xyxy[..., 2], size, width, samples)  # (P, B, size, samples)
    y, y_weight = _bin_samples(boxes_xyxy[..., 1], boxes_xyxy[..., 3], size, height, samples)
    columns, rows = x.flatten(2), y.flatten(2)  # (P, B, size * samples)
    grid = torch.stack(
        torch.broadcast_tensors(
            2 * columns[:, :, None, :] / max(width - 1, 1) - 1,
            2 * rows[:, :, :, None] / max(height - 1, 1) - 1,
        ),
        dim=-1,
    )  # (P, B, rows, columns, 2)
    sampled = F.grid_sample(
        features.float(), grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=True
    )  # (P, C, B * rows, columns)
    sampled = sampled.unflatten(2, (boxes_xyxy.shape[1], size, -1)).unflatten(-1, (size, -1))
    pooled = torch.einsum("pcbiyjx,pbiy,pbjx->pbcij", sampled, y_weight, x_weight)
    return pooled.to(features.dtype)


def _bin_samples(start: Tensor, end: Tensor, bins: int, cells: int, samples: int | None) -> tuple[Tensor, Tensor]:
    """Sample coordinates along one axis, and the weight of each sample in its bin; both (P, B, bins, samples)."""
    length = (end - start).clamp(min=1.0)
    counts = torch.ceil(length / bins)  # samples per bin; boxes differ
    samples = max(1, int(counts.max())) if samples is None else samples
    sample = torch.arange(samples, device=start.device)
    bin_index = torch.arange(bins, device=start.device)
    offset = bin_index[:, None] + (sample + 0.5) / counts[..., None, None]  # (P, B, bins, samples), in bins
    position = start[..., None, None] + offset * (length / bins)[..., None, None]
    counted = (sample < counts[..., None, None]) & (position >= -1) & (position <= cells)
    weight = counted / counts[..., None, None]
    return position.clamp(0, cells - 1), weight

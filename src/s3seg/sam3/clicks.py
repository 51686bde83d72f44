"""The click head: masks of single objects from points, boxes and earlier masks, over the backbone that text uses.

It is the image part of SAM 3's tracker (promptable visual segmentation), without the memory of earlier frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s3seg.sam3.click_decoder import ClickDecoder, ClickPredictions
from s3seg.sam3.click_prompts import ClickEncoder, ClickPrompts
from s3seg.sam3.config import ClickConfig, VisionConfig
from s3seg.sam3.vision import Neck


@dataclass(frozen=True, slots=True)
class ClickFeatures:
    """Everything that the click head computes of one image before a prompt is known."""

    tokens: Tensor
    """(1, h * w, C): the coarsest map of the head's own neck, with the embedding that says "no earlier frames"."""
    positions: Tensor
    """(h * w, C): position encodings of the tokens."""
    half: Tensor
    """(1, C / 4, 2h, 2w)"""
    quarter: Tensor
    """(1, C / 8, 4h, 4w)"""
    grid: tuple[int, int]
    """The patch grid, (h, w)."""


class ClickHead(nn.Module):
    """SAM 3's tracker for a single image: a second neck, a prompt encoder and a mask decoder.

    Corresponds to ``SAM3InteractiveImagePredictor`` (``sam3/model/sam1_task_predictor.py``) of the reference
    implementation.
    """

    def __init__(self, config: ClickConfig, vision: VisionConfig, channels: int) -> None:
        super().__init__()
        self.image_size = vision.image_size
        self.neck = Neck(vision.width, channels)
        self.no_memory = nn.Parameter(torch.zeros(1, 1, channels))
        self.half_project = nn.Conv2d(channels, channels // 4, 1)
        self.quarter_project = nn.Conv2d(channels, channels // 8, 1)
        self.prompts = ClickEncoder(config, channels)
        self.decoder = ClickDecoder(config, channels)

    def features(self, patches: Tensor) -> ClickFeatures:
        """Compute the features of one image from its patch tokens, (1, h, w, width)."""
        quarter, half, coarse = self.neck(patches)
        tokens = coarse.flatten(2).transpose(1, 2) + self.no_memory
        height, width = patches.shape[1:3]
        positions = self.prompts.encode_grid(height, width).to(tokens.dtype)
        return ClickFeatures(tokens, positions, self.half_project(half), self.quarter_project(quarter), (height, width))

    def forward(self, image: ClickFeatures, prompts: ClickPrompts) -> ClickPredictions:
        """Predict the masks of N objects in one image."""
        tokens, valid = self.prompts(prompts, self.image_size)
        return self.decoder(
            image.tokens + self.prompts.dense(prompts),
            image.positions,
            (image.half, image.quarter),
            image.grid,
            tokens,
            valid,
        )

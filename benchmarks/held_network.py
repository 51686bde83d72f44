"""A network that holds an accelerator for 30 ms a picture and finds eight things: all but the network is real.

For benchmarks only. Pictures are read and resized as for full SAM 3 (1008 pixels); masks have its grid of 288.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from s3seg import checkpoints
from s3seg.inference.accelerator.process import PredictorProcess
from s3seg.inference.stages import Sam3Network
from s3seg.sam3.device import DeviceStatus
from s3seg.sam3.model import ImageFeatures
from s3seg.sam3.predictor import Detections, Query
from s3seg.sam3.resize import resize
from s3seg.sam3.tokenizer import Tokenizer

HELD_S = 0.030
SIDE, GRID, INSTANCES = 1008, 288, 8


class HeldPredictor:
    """What `Sam3Network` and `PredictorProcess` need of a predictor; it sleeps instead of computing."""

    device, dtype, image_size = "held", "torch.float32", SIDE
    parameters = weights_bytes = 0
    has_clicks, problem = False, None

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_folder(checkpoints.resolve("embedded").folder, context=32)
        self._detections = eight_ellipses()
        self._features = torch.zeros(1, 1, 1, 1)

    def encode_resized(self, resized: Sequence[torch.Tensor]) -> list[ImageFeatures]:
        """Hold the accelerator for 30 ms a picture."""
        time.sleep(HELD_S * len(resized))
        return [ImageFeatures(self._features, self._features[0], ()) for _ in resized]

    def predict_pairs(
        self, pairs: Sequence[tuple[ImageFeatures, Query]], *, threshold: float, max_instances: int | None = None
    ) -> list[Detections]:
        """Find the same eight things in every picture."""
        return [self._detections for _ in pairs]

    def resize(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize a picture as full SAM 3 does."""
        return resize(pixels, SIDE)

    def encoded_bytes(self, features: ImageFeatures) -> int:
        """Count an encoded picture as one byte."""
        return 1

    def device_status(self) -> DeviceStatus:
        """Report that there is no GPU."""
        return DeviceStatus(False)

    def free_cached_memory(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def held_network(*, in_a_process: bool = False) -> Sam3Network:
    """Return a network that sleeps, in a process of its own or in the one that asks it."""
    load: Any = HeldPredictor  # not a predictor, but has what is asked of one
    network = Sam3Network(
        checkpoints.resolve("embedded"), predictor=PredictorProcess(load, device="held") if in_a_process else load()
    )
    network.metadata = replace(network.metadata, drawings_only=False)  # full SAM 3 looks for no photographs
    return network


def eight_ellipses() -> Detections:
    """Return eight instances that do not touch, with scores from .95 down to .55."""
    y, x = np.mgrid[0:GRID, 0:GRID] / GRID
    centres = [((i % 4 + 0.5) / 4, (i // 4 + 0.5) / 2) for i in range(INSTANCES)]
    logits = [1 - ((x - cx) / 0.11) ** 2 - ((y - cy) / 0.22) ** 2 for cx, cy in centres]
    return Detections(
        scores=np.linspace(0.95, 0.55, INSTANCES, dtype=np.float32),
        boxes_xyxy=np.array([[cx - 0.11, cy - 0.22, cx + 0.11, cy + 0.22] for cx, cy in centres], np.float32),
        mask_logits=torch.tensor(np.stack(logits), dtype=torch.float32),
        presence=1.0,
    )

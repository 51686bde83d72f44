"""Try a checkpoint on one drawn picture, of which the right answer is known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3seg.checkpoints import Checkpoint
    from s3seg.results.segmentation import ModelInfo

PROMPT = "red circle"
_SIDE = 512
_CIRCLE = (150, 170, 330, 350)  # left, top, right, bottom in pixels
_SQUARE = (360, 40, 470, 150)
_MIN_OVERLAP = 0.7


@dataclass(frozen=True, slots=True)
class Trial:
    """What a checkpoint found in the picture.

    Attributes:
        model: Name, version, device and precision.
        parameters: The number of weights.
        scores: The score of each instance, best first.
        presence: The score of the concept in the picture, 0..1.
        overlap: Mask IoU of the best instance with the circle that is drawn; 0 if nothing was found.
        load_seconds: Time to load the weights.
        segment_seconds: Time to segment the picture.
    """

    model: ModelInfo
    parameters: int
    scores: tuple[float, ...]
    presence: float
    overlap: float
    load_seconds: float
    segment_seconds: float

    @property
    def is_found(self) -> bool:
        """Whether the best instance is the circle."""
        return self.overlap >= _MIN_OVERLAP


def run_trial(checkpoint: Checkpoint) -> Trial:
    """Load a checkpoint and look for the red circle in a picture with a red circle and a blue square.

    Raises:
        CheckpointError: The files are not those of a SAM 3, or do not fit together.
        InferenceError: The network failed.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from s3seg.inference.segmenter import Segmenter

    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse(_CIRCLE, fill="red")
    draw.rectangle(_SQUARE, fill="blue")
    drawn = (np.asarray(picture) == (255, 0, 0)).all(axis=-1)

    started = time.perf_counter()
    segmenter = Segmenter(checkpoint)
    loaded = time.perf_counter()
    result = segmenter.segment(picture, PROMPT)
    done = time.perf_counter()
    overlap = 0.0
    if len(result):
        best = result.masks[int(np.argmax(result.scores))]
        overlap = float((best & drawn).sum() / (best | drawn).sum())
    return Trial(
        model=segmenter.model,
        parameters=segmenter.parameters,
        scores=tuple(sorted((float(score) for score in result.scores), reverse=True)),
        presence=result.presence,
        overlap=overlap,
        load_seconds=loaded - started,
        segment_seconds=done - loaded,
    )

"""A network that holds an accelerator for 30 ms a picture and finds eight things: all but the network is real.

For the benchmark only. Pictures are read and resized as for full SAM 3 (1008 pixels); masks have its grid of 288.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from s3seg import checkpoints, images
from s3seg.decoding import DecodingPool
from s3seg.inference.network import EncodedImage, ResizedImage
from s3seg.results.hints import Hint
from s3seg.results.segmentation import ModelInfo
from s3seg.sam3.device import DeviceStatus
from s3seg.sam3.model import ImageFeatures
from s3seg.sam3.predictor import Detections, Query
from s3seg.sam3.resize import resize, resized_from_bytes
from s3seg.sam3.tokenizer import Tokenizer

HELD_S = 0.030
SIDE, GRID, INSTANCES = 1008, 288, 8


class HeldNetwork:
    """A `s3seg.inference.network.Network` that sleeps instead of computing."""

    threshold = 0.5
    model = ModelInfo("held", "1", "cpu", "float32")
    parameters = weights_bytes = 0

    def __init__(self) -> None:
        self._detections = _eight_ellipses()

    problem = None

    def device_status(self) -> DeviceStatus:
        """Report that there is no GPU."""
        return DeviceStatus(False)

    def read(self, content: bytes, *, name: str) -> ResizedImage:
        """Decode and resize a picture as for full SAM 3."""
        loaded = images.load(content, name=name, reduce_to=SIDE)
        return ResizedImage(resize(loaded.pixels, SIDE), loaded.full_size)

    async def read_in(self, pool: DecodingPool, content: bytes, *, name: str, user_id: str) -> ResizedImage:
        """Decode and resize a picture as for full SAM 3, in a decoding process."""
        limits = {"max_pixels": images.MAX_PIXELS, "max_memory": images.MAX_MEMORY}
        fields, pixels = await pool.run(content, user_id=user_id, name=name, side=SIDE, **limits)
        return ResizedImage(resized_from_bytes(pixels, SIDE), tuple(fields["size"]))

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Accept every prompt."""

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        """Hold the accelerator for 30 ms a picture."""
        time.sleep(HELD_S * len(pictures))
        return [EncodedImage(None, picture.size, 1) for picture in pictures]

    def hints(self, prompt: str, *, photograph: bool = False) -> tuple[Hint, ...]:
        """Give no hints."""
        return ()

    def predict(self, pairs: Sequence[tuple[EncodedImage, str]]) -> list[Detections]:
        """Find the same eight things in every picture."""
        return [self._detections for _ in pairs]

    def free(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class HeldPredictor:
    """The same as a predictor, for `s3seg.inference.accelerator.process.PredictorProcess`."""

    device, dtype, image_size = "held", "torch.float32", SIDE
    parameters = weights_bytes = 0

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_folder(checkpoints.resolve("embedded").folder, context=32)
        self._detections = _eight_ellipses()
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

    def device_status(self) -> DeviceStatus:
        """Report that there is no GPU."""
        return DeviceStatus(False)


def _eight_ellipses() -> Detections:
    y, x = np.mgrid[0:GRID, 0:GRID] / GRID
    centres = [((i % 4 + 0.5) / 4, (i // 4 + 0.5) / 2) for i in range(INSTANCES)]
    logits = [1 - ((x - cx) / 0.11) ** 2 - ((y - cy) / 0.22) ** 2 for cx, cy in centres]
    return Detections(
        scores=np.linspace(0.95, 0.55, INSTANCES, dtype=np.float32),
        boxes_xyxy=np.array([[cx - 0.11, cy - 0.22, cx + 0.11, cy + 0.22] for cx, cy in centres], np.float32),
        mask_logits=torch.tensor(np.stack(logits), dtype=torch.float32),
        presence=1.0,
    )

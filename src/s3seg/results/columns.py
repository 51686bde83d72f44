"""The attributes of a result that drawings and exports read; `Segmentation` has them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from s3seg.results.masks import RLE


class Columns(Protocol):
    """Instances of one prompt on one picture, in order of falling score."""

    @property
    def prompt(self) -> str:
        """The prompt; empty when only boxes were given."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        ...

    @property
    def rles(self) -> tuple[RLE, ...]:
        """N masks of the picture's size."""
        ...

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32, xyxy in pixels, as predicted by the network."""
        ...

    @property
    def scores(self) -> np.ndarray:
        """(N,) float32, 0..1."""
        ...

    @property
    def source(self) -> str | None:
        """The picture's file name, if it has one."""
        ...

    @property
    def image_id(self) -> str | None:
        """Identifies the picture among results; see `Segmentation`."""
        ...

    @property
    def image(self) -> np.ndarray | None:
        """The decoded picture, (H, W, 3) uint8 RGB, if it was kept."""
        ...

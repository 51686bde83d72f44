"""One instance of what a prompt asked for: `Instance`, an element of a `Segmentation`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3seg.results import masks
from s3seg.results.masks import RLE, Box
from s3seg.results.polygons import Polygon


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of what the prompt asked for.

    Attributes:
        rle: its mask, of the picture's size.
        box: (x1, y1, x2, y2) in pixels, as predicted by the network; `masks.box(rle)` is the tight box of the mask.
        score: 0..1.
        prompt: the prompt that it was found with.
    """

    rle: RLE
    box: Box
    score: float
    prompt: str

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool; decoded on each access."""
        return masks.decode(self.rle)

    @property
    def area(self) -> int:
        """Number of pixels in the mask."""
        return masks.area(self.rle)

    def polygons(self) -> list[Polygon]:
        """Trace the parts of the mask as polygons with holes, exact on pixel edges; see `s3seg.results.polygons`."""
        return masks.polygons(self.rle)

    def __repr__(self) -> str:
        box = ", ".join(f"{side:.1f}" for side in self.box)
        return f"Instance({self.prompt!r}, score={self.score:.3f}, box=({box}), area={self.area})"

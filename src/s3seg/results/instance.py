"""One instance of what a prompt asked for: `Instance`, an element of a `Segmentation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Unpack

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.masks import RLE, Box
from s3seg.results.polygons import Polygon

if TYPE_CHECKING:
    import PIL.Image

    from s3seg.images import ImageSource
    from s3seg.results.overlay_style import OverlayStyle


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of what the prompt asked for.

    Attributes:
        rle: its mask, of the picture's size.
        box: (x1, y1, x2, y2) in pixels, as predicted by the network; `masks.box(rle)` is the tight box of the mask.
        score: 0..1.
        prompt: the prompt that it was found with.
        image: the decoded picture, (H, W, 3) uint8 RGB, if the result has it; shared, not copied.
    """

    rle: RLE
    box: Box
    score: float
    prompt: str
    image: np.ndarray | None = field(default=None, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool; decoded on each access."""
        return masks.decode(self.rle)

    @property
    def area(self) -> int:
        """Number of pixels in the mask."""
        return masks.area(self.rle)

    def polygons(self, *, tolerance: float = 0.0) -> list[Polygon]:
        """Trace the parts of the mask as polygons with holes; see `s3seg.results.polygons`.

        Args:
            tolerance: pixels by which an outline may move, to leave out vertices. With 0 the polygons are exact.
        """
        return masks.polygons(self.rle, tolerance=tolerance)

    def crop(self, image: ImageSource | None = None, *, padding: int = 0) -> PIL.Image.Image:
        """Cut the instance out of the picture: an RGBA image of the size of the mask's box, with the mask as alpha.

        Args:
            image: the picture, from any source that `s3seg.images.load` takes; required if the result does not hold
                it, as after `Segmentation.load`.
            padding: transparent pixels to leave around it, as far as the picture reaches.
        """
        from s3seg.results import draw

        return draw.crop(self._picture(image), _Alone(self), padding=padding)

    def overlay(self, image: ImageSource | None = None, **style: Unpack[OverlayStyle]) -> PIL.Image.Image:
        """Draw the instance on the picture.

        Args:
            image: the picture, as for `crop`.
            style: how it looks; see `s3seg.results.overlay_style.OverlayStyle`.
        """
        from s3seg.results import draw

        return draw.overlay(self._picture(image), _Alone(self), **style)

    def _picture(self, image: ImageSource | None) -> ImageSource:
        if image is not None:
            return image
        if self.image is None:
            raise InvalidRequestError("this instance does not hold its picture (saved files never do): pass image=...")
        from s3seg import images

        return images.of_result(self.image)

    def __repr__(self) -> str:
        box = ", ".join(f"{side:.1f}" for side in self.box)
        return f"Instance({self.prompt!r}, score={self.score:.3f}, box=({box}), area={self.area})"


class _Alone:
    """An instance as `s3seg.results.columns.Columns`, for drawing."""

    def __init__(self, instance: Instance) -> None:
        self.prompt = instance.prompt
        self.size = instance.rle.size
        self.rles = (instance.rle,)
        self.boxes = np.array([instance.box], np.float32)
        self.scores = np.array([instance.score], np.float32)
        self.source = self.image_id = None
        self.image = instance.image

"""A model for FiftyOne: ``dataset.apply_model(FiftyOneModel(seg, ["tree", "cloud"]), label_field="found")``.

Needs the package ``fiftyone``.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import fiftyone as fo
from fiftyone.core.models import Model

from s3seg.inference.prompts import checked_prompts
from s3seg.results import export

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.inference.segmenter import Segmenter


class FiftyOneModel(Model):
    """Finds the same prompts in every picture of a dataset.

    Args:
        model: Segments the pictures: on this machine, or on an s3seg service.
        prompts: What to look for; they become the labels.
        threshold: Keep instances that score above this; by default the model's own.

    Raises:
        PromptError: There is no prompt, or one is empty or not text.
    """

    def __init__(
        self, model: Segmenter | Client, prompts: str | Sequence[str], *, threshold: float | None = None
    ) -> None:
        self._model = model
        self._prompts = checked_prompts(prompts, has_boxes=False)
        self._threshold = threshold

    @property
    def media_type(self) -> str:
        """The media that it takes."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Whether pictures of different sizes cannot be stacked; FiftyOne then passes one at a time."""
        return True

    @property
    def transforms(self) -> None:
        """What FiftyOne shall do to pictures first: nothing."""
        return

    @property
    def preprocess(self) -> bool:
        """Whether FiftyOne shall do it."""
        return False

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        """FiftyOne sets this; there is nothing to do."""

    def predict(self, arg: Any) -> fo.Detections:
        """Find every instance in a picture.

        Args:
            arg: The picture, as FiftyOne read it: (H, W), (H, W, 3) or (H, W, 4) uint8, in RGB.

        Raises:
            S3segError: The picture cannot be segmented.
        """
        return export.fiftyone(self._model.segment(arg, self._prompts, threshold=self._threshold))

"""`Refiner`: what a result needs to correct one of its masks with clicks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from s3seg.errors import InvalidRequestError
from s3seg.results.masks import RLE
from s3seg.results.segmentation import Segmentation

if TYPE_CHECKING:
    from s3seg.inference.embedding import Embedding
    from s3seg.inference.segmenter import Segmenter


class Refiner:
    """Corrects masks of results on one picture; see `Segmentation.refine`.

    It does not keep the encoding of the picture alive, which would fill the device's memory with those of all results.

    Args:
        segmenter: The segmenter that made the results.
        embedding: The picture.
    """

    def __init__(self, segmenter: Segmenter, embedding: Embedding) -> None:
        self._segmenter = segmenter
        self._embedding = weakref.ref(embedding)

    def __call__(
        self,
        result: Segmentation,
        index: int,
        points: Sequence[Sequence[float]],
        labels: Sequence[int] | None,
        box: Sequence[float] | None,
    ) -> RLE:
        """Return the corrected mask of one instance."""
        embedding = self._embedding()
        if embedding is None:
            if result.image is None:
                raise InvalidRequestError("this result does not hold its picture any more; segment the picture again")
            embedding = self._segmenter.encode_again(result.image, result.image_id)
        corrected = self._segmenter.click(embedding, points, labels, box=box, mask=result.rles[index])
        return corrected.rles[0]

    def __reduce__(self) -> tuple[object, ...]:
        return (_none, ())  # a copy of a result in another process has no network


def _none() -> None:
    return None

"""Thresholds of prompts, chosen on a few labelled pictures.

A score is not a probability: which threshold is best depends on the prompt, the pictures, and the checkpoint. Here the
best is the one with the highest F1 on the labelled pictures: an instance counts as found if its mask has an IoU of
0.5 or more with a labelled one that no better-scored instance has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3seg.errors import InvalidRequestError, MaskError
from s3seg.results import masks
from s3seg.results.files import json_text, write_atomically
from s3seg.results.instances_file import MIN_SCORE
from s3seg.results.masks import RLE
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.tiles import Tile, checked_tile

if TYPE_CHECKING:
    from s3seg.images import ImageSource
    from s3seg.inference.segmenter import Segmenter

FORMAT = "s3seg.calibration/1"
_MATCH = 0.5  # IoU


@dataclass(frozen=True, slots=True)
class Curve:
    """How good a prompt is at every threshold that makes a difference.

    Attributes:
        thresholds: Rising; instances that score above are kept.
        precision: The share of what is kept that is labelled; 1 where nothing is kept.
        recall: The share of what is labelled that is found.
        labelled: How many instances are labelled in all pictures.
        pictures: How many pictures were looked at.
    """

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    labelled: int
    pictures: int

    @property
    def f1(self) -> tuple[float, ...]:
        """The harmonic mean of precision and recall."""
        pairs = zip(self.precision, self.recall, strict=True)
        return tuple(2 * p * r / (p + r) if p + r else 0.0 for p, r in pairs)

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Return F1, precision and recall at a threshold, which is compared in float32 as the scores are."""
        k = max(0, int(np.searchsorted(self.thresholds, np.float32(threshold), side="right")) - 1)
        return self.f1[k], self.precision[k], self.recall[k]

    @property
    def best(self) -> float:
        """The threshold with the highest F1: of equal ones the middle, which is furthest from a mistake."""
        f1 = np.array(self.f1)
        equal = np.flatnonzero(f1 >= f1.max() - 1e-9)
        gaps = np.flatnonzero(np.diff(equal) != 1)
        run = equal[: gaps[0] + 1] if len(gaps) else equal  # the first without a gap
        upper = (*self.thresholds, 1.0)[run[-1] + 1]
        return round((self.thresholds[run[0]] + upper) / 2, 4)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds of prompts for one checkpoint.

    Attributes:
        model: Name of the checkpoint.
        version: Of the checkpoint.
        curves: By prompt, in its normal form.
        tile: The tiles that the pictures were looked at in; None for whole pictures.
    """

    model: str
    version: str
    curves: dict[str, Curve]
    tile: Tile | None = None

    def threshold(self, prompt: str) -> float:
        """Return the calibrated threshold of a prompt.

        Raises:
            InvalidRequestError: The prompt was not calibrated.
        """
        if prompt not in self.curves:
            known = ", ".join(map(repr, self.curves))
            raise InvalidRequestError(f"{prompt!r:.60} was not calibrated, only {known:.200}; calibrate it too")
        return self.curves[prompt].best

    def check(self, model: str, version: str) -> None:
        """Raise InvalidRequestError if the calibration is of another checkpoint, or another version of it."""
        if (model, version) != (self.model, self.version):
            raise InvalidRequestError(
                f"the calibration is of {self.model} {self.version}, and the checkpoint is {model} {version}: scores "
                "of different checkpoints cannot be compared; calibrate again"
            )

    def check_tile(self, tile: Tile | None) -> None:
        """Raise InvalidRequestError if pictures will be looked at in other tiles than when it was made."""
        if tile != self.tile:
            made, asked = ("whole pictures" if one is None else f"tile={one}" for one in (self.tile, tile))
            raise InvalidRequestError(
                f"the calibration was made with {made}, and this is {asked}: scores of a thing differ with the size at "
                "which it is seen; calibrate again, or ask in the same way"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration to a file, completely or not at all."""
        curves = {prompt: {"threshold": curve.best, **asdict(curve)} for prompt, curve in self.curves.items()}
        made = {"format": FORMAT, "model": self.model, "version": self.version}
        with_tiles = {} if self.tile is None else {"tile": self.tile}
        write_atomically(path, json_text({**made, **with_tiles, "curves": curves}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote.

        Raises:
            InvalidRequestError: The file holds something else, or is damaged.
            OSError: It cannot be read.
        """
        try:
            return _calibration(json.loads(Path(path).read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise InvalidRequestError(f"{path} is not a calibration: {type(err).__name__}: {err}") from err


def calibrate(
    segmenter: Segmenter,
    labelled: Iterable[tuple[ImageSource, Mapping[str, Sequence[RLE]]]],
    *,
    tile: Tile | None = None,
    on_picture: Callable[[], None] = lambda: None,
) -> Calibration:
    """Choose the thresholds of prompts for a checkpoint.

    Args:
        segmenter: The loaded checkpoint.
        labelled: Pictures, and for each prompt that is labelled in it everything that is right, perhaps nothing.
        tile: Look also into tiles, as for `Segmenter.segment`; the calibration is for the same tiles.
        on_picture: Called after each picture.

    Raises:
        InvalidRequestError: There is no picture, or of a prompt nothing is labelled in any of them.
        MaskError: A labelled mask has another size than its picture.
        ImageDecodeError: A picture cannot be read.
        PromptError: A prompt is empty, or too long for the model.
    """
    found: dict[str, list[tuple[Segmentation, Sequence[RLE]]]] = {}
    for picture, truth in labelled:
        prompts = list(truth)
        results = segmenter.segment(picture, prompts, threshold=MIN_SCORE, tile=tile)
        for prompt, result in zip(prompts, results, strict=True):
            if other := next((rle.size for rle in truth[prompt] if rle.size != result.size), None):
                sizes = f"{result.size} (height, width), and a labelled mask {other}"
                raise MaskError(f"{result.source or 'a picture'} is {sizes}")
            found.setdefault(result.prompt, []).append((replace(result, image=None), truth[prompt]))
        on_picture()
    if not found:
        raise InvalidRequestError("there is no labelled picture to calibrate with")
    for prompt, pairs in found.items():
        if not any(truth for _, truth in pairs):
            raise InvalidRequestError(
                f"nothing is labelled for {prompt!r:.60} in any picture; a threshold needs examples of what is right"
            )
    curves = {prompt: measure(pairs) for prompt, pairs in found.items()}
    return Calibration(segmenter.model.name, segmenter.model.version, curves, checked_tile(tile))


def _calibration(data: dict[str, Any]) -> Calibration:
    if data["format"] != FORMAT:
        raise ValueError(f"its format is {data['format']!r:.60}, not {FORMAT!r}")
    curves = {str(prompt): _curve(values) for prompt, values in data["curves"].items()}
    return Calibration(str(data["model"]), str(data["version"]), curves, checked_tile(data.get("tile")))


def _curve(values: dict[str, Any]) -> Curve:
    columns = [tuple(float(value) for value in values[name]) for name in ("thresholds", "precision", "recall")]
    thresholds = columns[0]
    rising = list(thresholds) == sorted(thresholds)
    if not thresholds or len({len(column) for column in columns}) > 1 or not rising:
        raise ValueError("the columns of a curve differ in length or are not in order")
    if not all(0 <= value <= 1 for column in columns for value in column):
        raise ValueError("a number of a curve is not between 0 and 1")
    return Curve(*columns, labelled=int(values["labelled"]), pictures=int(values["pictures"]))


def measure(pairs: Iterable[tuple[Segmentation, Sequence[RLE]]]) -> Curve:
    """Compare what was found of one prompt with what is labelled.

    Args:
        pairs: For each picture the result, with all instances above `MIN_SCORE`, and the labelled masks; at least one
            mask in all.
    """
    scores: list[float] = []
    right: list[bool] = []
    labelled = pictures = 0
    for result, truth in pairs:
        iou = masks.iou(list(result.rles), list(truth))
        labelled, pictures = labelled + len(truth), pictures + 1
        for k, score in enumerate(result.scores.tolist()):  # the best first
            best = int(iou[k].argmax()) if len(truth) else 0
            matches = bool(len(truth)) and iou[k, best] >= _MATCH
            if matches:
                iou[:, best] = 0
            scores.append(score)
            right.append(matches)
    order = np.argsort(-np.array(scores), kind="stable")
    falling, hits = np.array(scores)[order], np.array(right, dtype=bool)[order]
    thresholds = np.unique(np.append(falling, np.float32(MIN_SCORE)))
    kept = np.searchsorted(-falling, -thresholds, side="left")  # how many score above each threshold
    found = np.concatenate([[0], np.cumsum(hits)])[kept]
    precision = np.where(kept, found / np.maximum(kept, 1), 1.0)
    columns = (thresholds, precision, found / labelled)
    return Curve(*(tuple(column.tolist()) for column in columns), labelled=labelled, pictures=pictures)

"""What a caller of `Segmenter` asks for, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from s3seg.errors import InvalidRequestError
from s3seg.inference.calibration import Calibration
from s3seg.inference.concepts import Concept
from s3seg.inference.prompts import Box, checked_threshold
from s3seg.tasks.prompts import normalize_prompt
from s3seg.tasks.tiles import Tile

Threshold: TypeAlias = "float | Mapping[str, float] | Literal['calibrated'] | None"


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for in a picture, and what to keep.

    Attributes:
        thresholds: Of each distinct prompt, in order; 0..1.
        prompts: The prompts as asked for, duplicates included.
        max_instances: Instances to keep for each prompt; None for all.
        boxes: Examples of what to find.
        negative_boxes: Examples of what not to find.
        tile: Side of the tiles; None for the whole picture only.
        concept: What examples on other pictures show; the prompt is then its words.
    """

    thresholds: Mapping[str, float]
    prompts: Sequence[str]
    max_instances: int | None = None
    boxes: Sequence[Box] = ()
    negative_boxes: Sequence[Box] = ()
    tile: Tile | None = None
    concept: Concept | None = None

    def __post_init__(self) -> None:
        if self.tile is not None and (len(self.boxes) or len(self.negative_boxes) or self.concept is not None):
            raise InvalidRequestError(
                "boxes cannot be used with tile, nor can a concept: a tile does not show what they show; leave tile out"
            )


def thresholds_for(
    threshold: Threshold,
    prompts: Sequence[str],
    *,
    default: float,
    calibration: Calibration | None,
    tile: Tile | None = None,
) -> dict[str, float]:
    """Return the threshold of each distinct prompt.

    Args:
        threshold: One for all; one for some prompts, by their texts, with the default for the others; "calibrated";
            or None for the default.
        prompts: In their normal form.
        default: The checkpoint's.
        calibration: What "calibrated" uses.
        tile: The tiles that are asked for, which must be those of the calibration.

    Raises:
        InvalidRequestError: A threshold is not a number between 0 and 1, or is of a prompt that is not asked for; or
            there is no calibration, or not of a prompt, or it was made with other tiles.
    """
    distinct = list(dict.fromkeys(prompts))
    if isinstance(threshold, str) and threshold == "calibrated":
        if calibration is None:
            raise InvalidRequestError(
                "threshold='calibrated' needs a calibration: make one with `s3seg calibrate`, and load it with "
                "Segmenter(calibration=...), or on the command line with --calibration"
            )
        calibration.check_tile(tile)
        return {prompt: calibration.threshold(prompt) for prompt in distinct}
    if isinstance(threshold, Mapping):
        given = {normalize_prompt(prompt): checked_threshold(one) for prompt, one in threshold.items()}
        if unused := sorted(set(given) - set(distinct)):
            raise InvalidRequestError(f"there is a threshold for {unused[0]!r:.60}, which is not among the prompts")
        return {prompt: given.get(prompt, default) for prompt in distinct}
    return dict.fromkeys(distinct, checked_threshold(default if threshold is None else threshold))

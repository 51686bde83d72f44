"""Combine results on one picture: several as one, or without overlaps between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.masks import RLE
from s3seg.results.model_info import ModelInfo
from s3seg.results.pictures import check_one_picture
from s3seg.results.segmentation import Segmentation


def merge(results: Iterable[Segmentation], *, prompt: str | None = None, max_iou: float | None = None) -> Segmentation:
    """Merge results on one picture into one, such as those of several names for the same thing.

    Args:
        results: One or more.
        prompt: The prompt of the merged result; by default the distinct prompts, joined by commas.
        max_iou: Of instances whose masks overlap by more than this IoU, 0..1, keep only the best; None keeps all.

    Returns:
        All instances, the best first. Its threshold is the lowest, its presence the highest of the results; times of
        stages that the results share count once, and others are added.

    Raises:
        InvalidRequestError: There is no result, the results are of several pictures, or ``max_iou`` is out of range.
    """
    results = list(results)
    if not results:
        raise InvalidRequestError("there is no result to merge")
    check_one_picture(results, "merge the results of each picture separately")
    if max_iou is not None and not 0 <= max_iou <= 1:
        raise InvalidRequestError(f"max_iou is between 0 and 1, got {max_iou!r:.60}")
    first = results[0]
    names = list(dict.fromkeys(result.prompt for result in results if result.prompt))
    merged = Segmentation(
        prompt=", ".join(names) if prompt is None else prompt,
        size=first.size,
        rles=tuple(rle for result in results for rle in result.rles),
        boxes=np.concatenate([result.boxes for result in results]),
        scores=np.concatenate([result.scores for result in results]),
        presence=max(result.presence for result in results),
        threshold=min(result.threshold for result in results),
        model=_model(results),
        timings=_timings(results),
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        hints=tuple(dict.fromkeys(hint for result in results for hint in result.hints)),
        source=first.source,
        image_id=first.image_id,
        image=next((result.image for result in results if result.image is not None), None),
    )
    return merged if max_iou is None else merged[distinct(merged.rles, max_iou=max_iou)]


def distinct(rles: Sequence[RLE], *, max_iou: float) -> list[int]:
    """Return the numbers of the masks that overlap with no earlier one that is kept by more than an IoU."""
    kept: list[int] = []
    for k, rle in enumerate(rles):
        if not kept or masks.iou([rle], [rles[other] for other in kept]).max() <= max_iou:
            kept.append(k)
    return kept


def without_overlaps(results: Iterable[Segmentation]) -> list[Segmentation]:
    """Give each pixel to one instance: of all that have it, the one with the highest score over all results.

    Args:
        results: Those of several prompts, or one, all on one picture.

    Returns:
        The results in the same order. Masks are cut, and instances that have lost all of their pixels are left out;
        boxes and scores stay as predicted.

    Raises:
        InvalidRequestError: The results are of several pictures.
    """
    results = list(results)
    check_one_picture(results, "resolve the overlaps of each picture separately")
    order = sorted(
        ((score, r, k) for r, result in enumerate(results) for k, score in enumerate(result.scores.tolist())),
        key=lambda one: -one[0],
    )
    cut: dict[tuple[int, int], RLE] = {}
    taken: RLE | None = None
    for _, r, k in order:
        rle = results[r].rles[k]
        cut[r, k] = rle if taken is None else masks.difference(rle, taken)
        taken = rle if taken is None else masks.union([taken, rle])
    resolved = []
    for r, result in enumerate(results):
        rles = tuple(cut[r, k] for k in range(len(result)))
        kept = [k for k, rle in enumerate(rles) if masks.area(rle)]
        resolved.append(replace(result, rles=rles)[kept])
    return resolved


def _model(results: Sequence[Segmentation]) -> ModelInfo:
    """Return the network of the results, or one that names all of them."""
    models = list(dict.fromkeys(result.model for result in results))
    if len(models) == 1:
        return models[0]
    columns = zip(*((one.name, one.version, one.device, one.dtype) for one in models), strict=True)
    return ModelInfo(*(", ".join(dict.fromkeys(column)) for column in columns))


def _timings(results: Sequence[Segmentation]) -> dict[str, float]:
    """Add the times of stages; "decode" and "image" are shared by the results of one picture if they are equal."""
    total: dict[str, float] = {}
    for stage in dict.fromkeys(stage for result in results for stage in result.timings):
        times = [result.timings[stage] for result in results if stage in result.timings]
        total[stage] = sum(set(times) if stage in ("decode", "image") else times)
    return total

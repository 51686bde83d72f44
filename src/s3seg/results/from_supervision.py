"""Results from `supervision.Detections`, such as those of other models or after supervision's own filters.

`Segmentation` calls this module and says what to make of what was read: the module does not import that class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.model_info import ModelInfo

if TYPE_CHECKING:
    import supervision as sv

_T = TypeVar("_T")
_UNKNOWN = ModelInfo(name="unknown", version="", device="", dtype="")


def from_supervision(detections: sv.Detections, *, make: Callable[..., _T], model: ModelInfo | None = None) -> list[_T]:
    """Read detections with masks, and call ``make`` with the arguments of `Segmentation` for each class.

    Args:
        detections: Of one picture. The prompts are its class names (``data["class_name"]``), or else the numbers of its
            classes. Detections without a confidence have the score 1.
        make: `Segmentation`.
        model: The network that found them, if it is known.

    Returns:
        What ``make`` returned, in order of appearance. The presence is the highest score, because supervision does not
        keep it. Without detections the list is empty.

    Raises:
        InvalidRequestError: The detections have no masks.
    """
    if not len(detections):
        return []
    if detections.mask is None:
        raise InvalidRequestError("these detections have no masks (detections.mask is None), only boxes")
    names = _names(detections)
    scores = np.ones(len(names)) if detections.confidence is None else np.asarray(detections.confidence)
    results: list[_T] = []
    for name in dict.fromkeys(names):
        chosen = [k for k, other in enumerate(names) if other == name]
        rles = tuple(masks.encode(np.asarray(detections.mask[k], dtype=np.bool_)) for k in chosen)
        results.append(
            make(
                prompt=name,
                size=rles[0].size,
                rles=rles,
                boxes=detections.xyxy[chosen],
                scores=scores[chosen],
                presence=float(scores[chosen].max()),
                threshold=0.0,
                model=model or _UNKNOWN,
            )
        )
    return results


def _names(detections: Any) -> list[str]:
    named = detections.data.get("class_name")
    if named is not None:
        return [str(name) for name in named]
    if detections.class_id is not None:
        return [str(number) for number in detections.class_id]
    return ["object"] * len(detections)

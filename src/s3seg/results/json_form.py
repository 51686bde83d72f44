"""The JSON form of a `Segmentation`: what `Segmentation.to_dict` gives and `Segmentation.from_dict` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from s3seg.errors import InvalidRequestError, S3segError
from s3seg.results import masks
from s3seg.results.segmentation import ModelInfo, Segmentation

FORMAT = "s3seg.segmentation/1"


def to_dict(result: Segmentation) -> dict[str, Any]:
    """Return everything but the picture as plain JSON values."""
    return {
        "format": FORMAT,
        "source": result.source,
        "prompt": result.prompt,
        "size": list(result.size),
        "presence": result.presence,
        "threshold": result.threshold,
        "model": asdict(result.model),
        "timings": dict(result.timings),
        "hint": result.hint,
        "instances": [
            {"score": score, "box": box, "rle": masks.to_coco(rle)}
            for score, box, rle in zip(result.scores.tolist(), result.boxes.tolist(), result.rles, strict=True)
        ],
    }


def from_dict(data: Mapping[str, Any]) -> Segmentation:
    """Read what `to_dict` returned.

    Raises:
        MaskError: A mask is malformed or has another size than the picture.
        InvalidRequestError: Anything else is missing or wrong.
    """
    try:
        if data["format"] != FORMAT:
            raise InvalidRequestError(f"expected format {FORMAT!r}, got {str(data['format'])[:80]!r}")
        instances = data["instances"]
        return Segmentation(
            prompt=_text(data["prompt"]),
            size=tuple(data["size"]),
            rles=tuple(masks.from_coco(one["rle"]) for one in instances),
            boxes=np.array([one["box"] for one in instances], dtype=np.float64),
            scores=np.array([one["score"] for one in instances], dtype=np.float64),
            presence=data["presence"],
            threshold=data["threshold"],
            model=_model(data["model"]),
            timings=data["timings"],
            hint=_text_or_none(data["hint"]),
            source=_text_or_none(data["source"]),
        )
    except S3segError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise InvalidRequestError(f"not a saved Segmentation: {type(err).__name__}: {err}") from err


def _model(data: Mapping[str, Any]) -> ModelInfo:
    name, version, device, dtype = (_text(data[key]) for key in ("name", "version", "device", "dtype"))
    return ModelInfo(name, version, device, dtype, _text_or_none(data["summary"]))


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {str(value)[:80]!r}")
    return value

"""The JSON form of results as plain values, and the files that hold one or several of them.

`Segmentation` calls this module and says what to make of what was read: the module does not import that class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import numpy as np

from s3seg.errors import InvalidRequestError, S3segError
from s3seg.results import masks
from s3seg.results.hints import Hint, HintKind
from s3seg.results.model_info import ModelInfo

if TYPE_CHECKING:
    from s3seg.results.segmentation import Segmentation

_T = TypeVar("_T")

FORMAT = "s3seg.segmentation/1"
INSTANCES_FORMAT = "s3seg.instances/1"
"""The format of the file in which a service stores the results of a task; see `s3seg.results.instances_file`."""


def to_dict(result: Segmentation) -> dict[str, Any]:
    """Return everything but the picture as plain JSON values."""
    return {
        "format": FORMAT,
        "source": result.source,
        "image_id": result.image_id,
        "prompt": result.prompt,
        "size": list(result.size),
        "presence": result.presence,
        "threshold": result.threshold,
        "model": asdict(result.model),
        "timings": dict(result.timings),
        "notes": list(result.notes),
        "hint": result.hint,
        "hints": [asdict(hint) for hint in result.hints],
        "instances": [
            {"score": score, "box": box, "rle": masks.to_coco(rle)}
            for score, box, rle in zip(result.scores.tolist(), result.boxes.tolist(), result.rles, strict=True)
        ],
    }


class Stored(NamedTuple):
    """Results as JSON values, and the threshold to which they have yet to be cut, if the file is one of instances."""

    results: list[Mapping[str, Any]]
    threshold: float | None


def from_dict(data: Mapping[str, Any], *, make: Callable[..., _T]) -> _T:
    """Read what `to_dict` returned, and call ``make`` with the arguments of `Segmentation`.

    Raises:
        MaskError: A mask is malformed or has another size than the picture.
        InvalidRequestError: Anything else is missing or wrong.
    """
    if not isinstance(data, Mapping):
        raise InvalidRequestError(
            f"from_dict takes one result as to_dict returns it, got {type(data).__name__}: {data!r:.60}; "
            "call it for each result of a list, and for a file use Segmentation.load or load_all"
        )
    try:
        if data.get("format") != FORMAT:
            raise InvalidRequestError(f"not a saved Segmentation: {_other_format(data)}")
        instances = data["instances"]
        return make(
            prompt=_text(data["prompt"]),
            size=tuple(data["size"]),
            rles=tuple(masks.from_coco(one["rle"]) for one in instances),
            boxes=np.array([one["box"] for one in instances], dtype=np.float64),
            scores=np.array([one["score"] for one in instances], dtype=np.float64),
            presence=data["presence"],
            threshold=data["threshold"],
            model=_model(data["model"]),
            timings=data["timings"],
            notes=tuple(map(_text, data.get("notes", ()))),
            hints=_hints(data),
            source=_text_or_none(data["source"]),
            image_id=_text_or_none(data.get("image_id")),
        )
    except S3segError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise InvalidRequestError(f"not a saved Segmentation: {type(err).__name__}: {err}") from err


def read_file(content: bytes) -> Stored:
    """Read the JSON of a file of one result, several, JSON Lines, or a file of instances.

    Raises:
        S3segError: It is a damaged file of instances.
        InvalidRequestError: A line of JSON Lines is not JSON.
        ValueError: It is not JSON.
    """
    values = _values(content.decode(json.detect_encoding(content)))
    if isinstance(values, dict) and values.get("format") == INSTANCES_FORMAT:
        return Stored(*read_instances(values))
    return Stored(values if isinstance(values, list) else [values], None)


def read_instances(values: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], float]:
    """Read the JSON of a file of instances: its results, and the threshold that it recommends.

    Raises:
        S3segError: It has another format, or is damaged.
    """
    try:
        if values["format"] != INSTANCES_FORMAT:
            raise S3segError(f"the instances file has format {values['format']!r:.60}, expected {INSTANCES_FORMAT!r}")
        return list(values["results"]), float(values["threshold"])
    except (ValueError, KeyError, TypeError) as err:
        raise S3segError(f"the instances file cannot be read: {type(err).__name__}: {err}") from err


def _values(text: str) -> Any:
    """Read a JSON document, or JSON Lines as a list; an empty text has no lines."""
    try:
        return json.loads(text) if text.strip() else []
    except ValueError:
        if values := _lines(text):
            return values
        raise


def _lines(text: str) -> list[Any]:
    """Read JSON Lines. A last line without its newline, which a stopped program leaves, is left out.

    Returns:
        The values; none if the first line is not a JSON object.

    Raises:
        InvalidRequestError: A later line is not JSON.
    """
    *lines, rest = text.split("\n")
    values: list[Any] = []
    for number, line in enumerate([*lines, rest], start=1):
        try:
            if line.strip():
                values.append(json.loads(line))
        except ValueError as err:
            if number == 1:
                return []
            if number > len(lines):
                break
            raise InvalidRequestError(f"line {number} is not JSON: {err}") from err
    return values if values and isinstance(values[0], dict) else []


def _other_format(data: Mapping[str, Any]) -> str:
    """Say what a JSON object is, if it is not a result."""
    if "annotations" in data and "images" in data:
        return "this is a COCO dataset; Segmentation.from_coco(path) reads it"
    if data.get("type") == "FeatureCollection":
        return "this is GeoJSON, which other tools read; save() or --json write what can be read back"
    if "task_id" in data or "data" in data:
        return "this is a response of the service; Client.segmentations(task_id) returns its results"
    if "results" in data:
        return "this is a file of several results; use Segmentation.load_all"
    if "format" not in data:
        return f"it has no format, expected {FORMAT!r}"
    return f"expected format {FORMAT!r}, got {str(data['format'])[:80]!r}"


def _model(data: Mapping[str, Any]) -> ModelInfo:
    name, version, device, dtype = (_text(data[key]) for key in ("name", "version", "device", "dtype"))
    return ModelInfo(name, version, device, dtype, _text_or_none(data["summary"]))


def _hints(data: Mapping[str, Any]) -> tuple[Hint, ...]:
    """Read the hints; earlier versions wrote one line of text only, and later ones may have further kinds."""
    line = _text_or_none(data["hint"])
    if "hints" not in data:
        return (Hint("other", line),) if line else ()
    return tuple(
        Hint(
            one["kind"] if one["kind"] in get_args(HintKind) else "other",
            _text(one["text"]),
            tuple(map(_text, one["words"])),
        )
        for one in data["hints"]
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {str(value)[:80]!r}")
    return value

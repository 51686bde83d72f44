"""Read COCO instance datasets: those of `s3seg.results.export.coco`, and those of other tools, such as ground truth."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from s3seg.errors import InvalidRequestError, MaskError, S3segError
from s3seg.results import masks
from s3seg.results.model_info import ModelInfo

_T = TypeVar("_T")

_MODEL = ModelInfo("coco", "", "", "", None)


def read_coco(
    dataset: str | os.PathLike[str] | Mapping[str, Any], *, empty_results: bool = False, make: Callable[..., _T]
) -> list[_T]:
    """Read the annotations of a dataset as results: one for each picture and category that has some.

    Masks may be compressed or uncompressed RLE, or polygons, which are filled as pycocotools does. Annotations
    without a score have the score 1. The names of the categories become prompts, and ``file_name`` the source.
    Keypoints, captions and other fields are ignored.

    Args:
        dataset: The dataset, or the path of its file.
        empty_results: Return a result for every picture and category, also where there is no annotation. That is for
            datasets in which every category was looked for in every picture, as in those of this package.
        make: Called with the arguments of `Segmentation`.

    Raises:
        MaskError: A mask is malformed or has another size than its picture.
        InvalidRequestError: It is not a COCO dataset of instances; the message says which entry is wrong.
        OSError: The file cannot be read.
    """
    name, data = "the dataset", dataset
    if not isinstance(dataset, Mapping):
        name = os.fspath(dataset)
        try:
            data = json.loads(Path(dataset).read_bytes())
        except ValueError as err:
            raise InvalidRequestError(f"{name} is not JSON: {err}") from err
    if not isinstance(data, Mapping) or not all(isinstance(data.get(key), list) for key in _LISTS):
        raise InvalidRequestError(f"{name} is not a COCO dataset: it needs the lists {', '.join(_LISTS)}")
    pictures = _by_id(data["images"], name, "image")
    categories = _by_id(data["categories"], name, "category")
    found: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    if empty_results:
        found = {(picture, category): [] for picture in pictures for category in categories}
    for one in data["annotations"]:
        key = (one.get("image_id"), one.get("category_id")) if isinstance(one, Mapping) else ([], [])
        if not _hashable(key) or key[0] not in pictures or key[1] not in categories:
            raise InvalidRequestError(f"{name}: an annotation is of no picture or category: {one!r:.120}")
        found.setdefault(key, []).append(one)
    order = {identity: k for k, identity in enumerate(pictures)}
    results = []
    for picture, category in sorted(found, key=lambda key: order[key[0]]):
        results.append(_result(pictures[picture], categories[category], found[picture, category], name, make))
    return results


_LISTS = ("images", "categories", "annotations")


def _hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _by_id(entries: Iterable[Any], name: str, kind: str) -> dict[Any, Mapping[str, Any]]:
    try:
        return {entry["id"]: entry for entry in entries}
    except (KeyError, TypeError) as err:
        raise InvalidRequestError(f"{name}: an {kind} has no id") from err


def _result(
    picture: Mapping[str, Any],
    category: Mapping[str, Any],
    annotations: list[Mapping[str, Any]],
    name: str,
    make: Callable[..., _T],
) -> _T:
    try:
        size = masks.checked_size((picture["height"], picture["width"]))
        rles = tuple(_rle(one, size) for one in annotations)
        return make(
            prompt=str(category["name"]),
            size=size,
            rles=rles,
            boxes=np.array([_box(one, rle) for one, rle in zip(annotations, rles, strict=True)], np.float64),
            scores=np.array([one.get("score", 1.0) for one in annotations], np.float64),
            presence=1.0,
            threshold=0.0,
            model=_MODEL,
            source=str(picture["file_name"]),
        )
    except S3segError as err:
        kind = MaskError if isinstance(err, MaskError) else InvalidRequestError
        raise kind(f"{name}: image {picture['id']!r:.40}: {err}") from err
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise InvalidRequestError(
            f"{name}: image {picture['id']!r:.40} or one of its annotations is malformed: {type(err).__name__}: {err}"
        ) from err


def _rle(annotation: Mapping[str, Any], size: tuple[int, int]) -> masks.RLE:
    mask = annotation.get("segmentation")
    if isinstance(mask, Mapping):
        return masks.from_coco(mask)
    if isinstance(mask, list) and mask:
        return masks.from_coco_polygons(mask, size)
    raise InvalidRequestError(f"annotation {annotation.get('id')!r:.40} has no mask, only a box")


def _box(annotation: Mapping[str, Any], rle: masks.RLE) -> tuple[float, ...]:
    """Return xyxy: the predicted box that `export.coco` writes, else the box of the annotation, else of the mask."""
    if (box := annotation.get("box_xyxy")) is not None:
        x1, y1, x2, y2 = (float(side) for side in box)
        return x1, y1, x2, y2
    if (box := annotation.get("bbox")) is not None:
        x, y, width, height = (float(side) for side in box)
        return x, y, x + width, y + height
    return masks.box(rle)

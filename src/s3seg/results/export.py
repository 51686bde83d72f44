"""Export results to other formats, one function per format. Each takes one result or several."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from csv import writer as csv_writer
from typing import TYPE_CHECKING, Any

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.label_map import encode_label_map
from s3seg.results.pictures import Results, as_list, check_one_picture, group_by_picture
from s3seg.results.polygons import Polygon, joined_rings

if TYPE_CHECKING:
    import fiftyone as fo  # pyright: ignore[reportMissingImports]
    import pandas as pd
    import supervision as sv

_NUDGE = 1e-6  # pixels: FiftyOne cuts off fractions, so 31 / 800 * 800 = 30.999... would become 30
_UNNAMED = "object"  # the category of results that were prompted with boxes only


def coco(results: Results) -> dict[str, Any]:
    """Build a COCO instance dataset from one result or many, ready for `json.dump` and `pycocotools.coco.COCO`.

    Each picture has one image entry, whatever the number of its prompts; pictures are told apart as described in
    `s3seg.results.pictures.group_by_picture`, and their file names are distinct. Prompts become categories, in order of
    appearance, also those that found nothing. Boxes and areas are those of the masks, as COCO requires; scores and the
    boxes predicted by the network (xyxy) are additional fields. Masks are compressed RLE.

    Raises:
        InvalidRequestError: two results name the same source but differ in size, and do not know their pictures.
    """
    columns = as_list(results)
    pictures = group_by_picture(columns)
    numbers = {id(result): k for k, picture in enumerate(pictures, start=1) for result in picture.results}
    categories = {prompt: k for k, prompt in enumerate(_prompts(columns), start=1)}
    annotations = []
    for result in columns:
        for rle, score, box in zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True):
            x1, y1, x2, y2 = masks.box(rle)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[id(result)],
                    "category_id": categories[result.prompt or _UNNAMED],
                    "segmentation": masks.to_coco(rle),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": masks.area(rle),
                    "iscrowd": 0,
                    "score": score,
                    "box_xyxy": box,
                }
            )
    return {
        "info": {"description": "instances found by s3seg"},
        "images": [
            {"id": k, "file_name": picture.name, "height": picture.size[0], "width": picture.size[1]}
            for k, picture in enumerate(pictures, start=1)
        ],
        "categories": [{"id": k, "name": prompt} for prompt, k in categories.items()],
        "annotations": annotations,
    }


def yolo(results: Results, *, class_id: int = 0) -> str:
    """Write YOLO segmentation labels of one picture: a line of `class x1 y1 x2 y2 ...`, 0..1, for each instance.

    A line holds one closed path; the format has no holes and no separate parts. To keep both, the rings of an
    instance are joined by bridges of zero width (there and back along the same line), as YOLO's own
    converters join parts. An even-odd fill reproduces the mask exactly; a fill that also paints the path,
    such as `cv2.fillPoly`, adds a seam one pixel wide. Instances with an empty mask have no line.

    Args:
        results: one result, or several on the same picture.
        class_id: class of the first prompt; further prompts are numbered on, in order of appearance.

    Raises:
        InvalidRequestError: the results are of several pictures, which have a file each; see `yolo_files`.
    """
    columns = as_list(results)
    check_one_picture(columns, "a YOLO label file describes one picture; yolo_files(results) returns the text for each")
    classes = {prompt: k for k, prompt in enumerate(_prompts(columns), start=class_id)}
    return _yolo(columns, classes)


def yolo_files(results: Results) -> dict[str, str]:
    """Write YOLO segmentation labels for one picture or many; see `yolo`.

    Returns:
        The text for each picture, by its name (the source, or a name made for it). A picture with nothing on it has an
        empty text. The classes are the prompts of all results in order of appearance, from 0, for every picture.
    """
    columns = as_list(results)
    classes = {prompt: k for k, prompt in enumerate(_prompts(columns))}
    return {picture.name: _yolo(picture.results, classes) for picture in group_by_picture(columns)}


def _yolo(results: Iterable[Columns], classes: dict[str, int]) -> str:
    lines = []
    for result in results:
        height, width = result.size
        for rle in result.rles:
            rings = [ring for polygon in masks.polygons(rle) for ring in polygon]
            if rings:
                path = joined_rings(rings) / np.array([width, height])
                values = " ".join(f"{value:.7g}" for value in path.ravel().tolist())
                lines.append(f"{classes[result.prompt or _UNNAMED]} {values}\n")
    return "".join(lines)


def geojson(results: Results) -> dict[str, Any]:
    """Build a GeoJSON FeatureCollection (RFC 7946) with one feature per instance, ready for `json.dump`.

    Coordinates are pixels: x to the right, y down, (0, 0) the top-left corner of the picture. An instance
    with one part is a Polygon, with several a MultiPolygon; an empty mask has no geometry. Each feature names its
    picture ("image"). The collection lists the pictures and prompts, also those where nothing was found.
    """
    columns = as_list(results)
    pictures = group_by_picture(columns)
    names = {id(result): picture.name for picture in pictures for result in picture.results}
    features: list[dict[str, Any]] = []
    for result in columns:
        for rle, score, box in zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True):
            features.append(
                {
                    "type": "Feature",
                    "id": len(features) + 1,
                    "bbox": list(masks.box(rle)),
                    "geometry": _geometry(masks.polygons(rle)),
                    "properties": {
                        "image": names[id(result)],
                        "prompt": result.prompt,
                        "score": score,
                        "area": masks.area(rle),
                        "box_xyxy": box,
                    },
                }
            )
    name = (pictures[0].results[0].source if len(pictures) == 1 else None) or "instances"
    return {
        "type": "FeatureCollection",
        "name": name,
        "images": [{"name": one.name, "height": one.size[0], "width": one.size[1]} for one in pictures],
        "prompts": list(dict.fromkeys(result.prompt for result in columns)),
        "features": features,
    }


def png_label_map(results: Results) -> bytes:
    """Encode the label map of one picture as a greyscale PNG; see `s3seg.results.label_map.encode_label_map`.

    Raises:
        InvalidRequestError: there is no result, or the results are of several pictures.
    """
    columns = as_list(results)
    if not columns:
        raise InvalidRequestError("a label map needs at least one result, to know the size of the picture")
    check_one_picture(columns, "make a label map of each picture")
    return encode_label_map(columns)


def csv(results: Results, *, empty_rows: bool = False) -> str:
    """Write CSV with a header, and one row for each instance; the columns are those of the command line.

    Args:
        results: one result or many.
        empty_rows: write a row for a picture and prompt with nothing found, with no values from "instance" to "y2" and
            area 0. By default such a picture has no row.
    """
    text = io.StringIO()
    rows = csv_writer(text, lineterminator="\n")
    rows.writerow(["source", "prompt", "instance", "score", "x1", "y1", "x2", "y2", "area", "height", "width"])
    columns = as_list(results)
    for image, result in zip(_names(columns), columns, strict=True):
        scored = zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True)
        for k, (rle, score, box) in enumerate(scored, start=1):
            sides = (round(side, 2) for side in box)
            rows.writerow([image, result.prompt, k, round(score, 4), *sides, masks.area(rle), *result.size])
        if empty_rows and not result.rles:
            rows.writerow([image, result.prompt, *[""] * 6, 0, *result.size])
    return text.getvalue()


def pandas(results: Results, *, empty_rows: bool = False) -> pd.DataFrame:
    """Build a table with one row for each instance of one result or many.

    Columns: source, prompt, score, x1, y1, x2, y2 (pixels), area (pixels), height, width, rle (COCO counts), and image:
    the source, or a distinct name for a picture without one.

    Args:
        results: one result or many.
        empty_rows: add a row for a picture and prompt with nothing found, with area 0 and no score, box and rle. Then
            ``table.groupby(["image", "prompt"])["score"].count()`` counts the instances of every picture, zeros
            included. By default such a picture has no row.

    Raises:
        InvalidRequestError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as err:
        raise InvalidRequestError("to_pandas needs pandas: pip install pandas") from err

    columns = as_list(results)
    rows: list[tuple[Any, ...]] = []
    for image, result in zip(_names(columns), columns, strict=True):
        for rle, score, box in zip(result.rles, result.scores, result.boxes, strict=True):
            rows.append((result.source, result.prompt, score, *box, masks.area(rle), *result.size, rle.counts, image))
        if empty_rows and not result.rles:
            nothing = [np.float32("nan")] * 5
            rows.append((result.source, result.prompt, *nothing, 0, *result.size, None, image))
    types = {
        "source": object,
        "prompt": object,
        **dict.fromkeys(("score", "x1", "y1", "x2", "y2"), np.float32),
        **dict.fromkeys(("area", "height", "width"), np.int64),
        "rle": object,
        "image": object,
    }
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def supervision(results: Results) -> sv.Detections:
    """Convert one or more results on one picture to `supervision.Detections`; `class_id` numbers the prompts from 0.

    The masks are (N, H, W) bool, so they take N × H × W bytes. The prompts are in `data["class_name"]`. Where nothing
    was found, the arrays are there with N = 0.

    Raises:
        InvalidRequestError: supervision is not installed, or the results are of several pictures.
    """
    try:
        import supervision as sv
    except ImportError as err:
        raise InvalidRequestError("to_supervision needs supervision: pip install supervision") from err

    columns = as_list(results)
    if not columns:
        return sv.Detections.empty()
    check_one_picture(columns, "convert the results of each picture separately")
    classes = {prompt: k for k, prompt in enumerate(_prompts(columns))}
    names = [result.prompt or _UNNAMED for result in columns for _ in result.rles]
    decoded = [masks.decode(rle) for result in columns for rle in result.rles]
    return sv.Detections(
        xyxy=np.concatenate([result.boxes for result in columns]),
        mask=np.array(decoded, dtype=np.bool_).reshape(-1, *columns[0].size),
        confidence=np.concatenate([result.scores for result in columns]),
        class_id=np.array([classes[name] for name in names], dtype=np.int64),
        data={"class_name": np.array(names, dtype=np.str_)},
    )


def fiftyone(results: Results) -> fo.Detections:
    """Convert one or more results on one picture to `fiftyone.Detections`: a label, box, mask and confidence each.

    Boxes are those of the masks, relative to the picture, and each mask is cut to its box. Empty masks are left out.

    Raises:
        InvalidRequestError: fiftyone is not installed, or the results are of several pictures.
    """
    try:
        import fiftyone as fo  # pyright: ignore[reportMissingImports]
    except ImportError as err:
        raise InvalidRequestError("to_fiftyone needs fiftyone: pip install fiftyone") from err

    columns = as_list(results)
    if columns:
        check_one_picture(columns, "convert the results of each picture separately")
    detections = []
    for result in columns:
        height, width = result.size
        for rle, score in zip(result.rles, result.scores.tolist(), strict=True):
            mask, (y, x) = masks.decode_box(rle)
            if mask.size:
                left, top = (x + _NUDGE) / width, (y + _NUDGE) / height
                box = [left, top, mask.shape[1] / width, mask.shape[0] / height]
                label = result.prompt or _UNNAMED
                detections.append(fo.Detection(label=label, bounding_box=box, mask=mask, confidence=score))
    return fo.Detections(detections=detections)


def _prompts(results: Iterable[Columns]) -> list[str]:
    return list(dict.fromkeys(result.prompt or _UNNAMED for result in results))


def _names(results: Sequence[Columns]) -> list[str]:
    """Return the distinct name of each result's picture."""
    names = {id(one): picture.name for picture in group_by_picture(results) for one in picture.results}
    return [names[id(result)] for result in results]


def _geometry(polygons: list[Polygon]) -> dict[str, Any] | None:
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if not closed:
        return None
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}

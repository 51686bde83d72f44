"""Export results to other formats, one function per format. Each takes one result or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.label_map import encode_binary_mask, encode_class_map, encode_label_map, encode_palette_mask
from s3seg.results.pictures import Results, as_list, base_names_of, check_one_picture, group_by_picture
from s3seg.results.polygon_formats import as_geometry
from s3seg.results.polygons import joined_rings
from s3seg.results.tables import count_csv, count_pandas, csv, pandas

__all__ = [
    "coco",
    "count_csv",
    "count_pandas",
    "csv",
    "fiftyone",
    "geojson",
    "pandas",
    "png_binary_mask",
    "png_class_map",
    "png_label_map",
    "png_palette_mask",
    "supervision",
    "yolo",
    "yolo_files",
]

if TYPE_CHECKING:
    import fiftyone as fo  # pyright: ignore[reportMissingImports]
    import supervision as sv

_NUDGE = 1e-6  # pixels: FiftyOne cuts off fractions, so 31 / 800 * 800 = 30.999... would become 30
_UNNAMED = "object"  # the category of results that were prompted with boxes only


def coco(
    results: Results, *, polygons: bool = False, tolerance: float = 0.0, base_names: bool = False
) -> dict[str, Any]:
    """Build a COCO instance dataset from one result or many, ready for `json.dump` and `pycocotools.coco.COCO`.

    Each picture has one image entry, whatever the number of its prompts; pictures are told apart as described in
    `s3seg.results.pictures.group_by_picture`, and their file names are distinct. Prompts become categories, in order of
    appearance, also those that found nothing. Boxes and areas are those of the masks, as COCO requires; scores and the
    boxes predicted by the network (xyxy) are additional fields. `s3seg.results.coco.read_coco` reads datasets.

    Args:
        results: one result or many.
        polygons: write polygons instead of compressed RLE, which are exact. A polygon is one part of a mask; to
            keep its holes, they are joined to its outline by bridges of zero width, which pycocotools fills correctly.
        tolerance: pixels by which outlines of polygons may move, to leave out vertices; 0 moves none. Boxes and areas
            are those of the masks in any case.
        base_names: name pictures by their files only, without folders, as tools expect that are given the folder of the
            pictures apart.

    Raises:
        InvalidRequestError: two results name the same source but differ in size, and do not know their pictures; or two
            pictures have the same base name.
    """
    columns = as_list(results)
    pictures = group_by_picture(columns)
    file_names = base_names_of(pictures) if base_names else [picture.name for picture in pictures]
    numbers = {id(result): k for k, picture in enumerate(pictures, start=1) for result in picture.results}
    categories = {prompt: k for k, prompt in enumerate(_prompts(columns), start=1)}
    annotations = []
    for result in columns:
        for rle, score, box in zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True):
            x1, y1, x2, y2 = masks.box(rle)
            area = masks.area(rle)
            as_polygons = polygons and area > 0  # an empty mask has no outline, but an RLE
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[id(result)],
                    "category_id": categories[result.prompt or _UNNAMED],
                    "segmentation": _coco_polygons(rle, tolerance) if as_polygons else masks.to_coco(rle),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": 0,
                    "score": score,
                    "box_xyxy": box,
                }
            )
    return {
        "info": {"description": "instances found by s3seg"},
        "images": [
            {"id": k, "file_name": name, "height": picture.size[0], "width": picture.size[1]}
            for k, (picture, name) in enumerate(zip(pictures, file_names, strict=True), start=1)
        ],
        "categories": [{"id": k, "name": prompt} for prompt, k in categories.items()],
        "annotations": annotations,
    }


def _coco_polygons(rle: masks.RLE, tolerance: float) -> list[list[int]]:
    return [joined_rings(polygon).ravel().tolist() for polygon in masks.polygons(rle, tolerance=tolerance)]


def yolo(results: Results, *, class_id: int = 0, tolerance: float = 0.0) -> str:
    """Write YOLO segmentation labels of one picture: a line of `class x1 y1 x2 y2 ...`, 0..1, for each instance.

    A line holds one closed path; the format has no holes and no separate parts. To keep both, the rings of an
    instance are joined by bridges of zero width (there and back along the same line), as YOLO's own
    converters join parts. An even-odd fill reproduces the mask exactly; a fill that also paints the path,
    such as `cv2.fillPoly`, adds a seam one pixel wide. Instances with an empty mask have no line.

    Args:
        results: one result, or several on the same picture.
        class_id: class of the first prompt; further prompts are numbered on, in order of appearance.
        tolerance: pixels by which outlines may move, to leave out vertices; 0 moves none.

    Raises:
        InvalidRequestError: the results are of several pictures, which have a file each; see `yolo_files`.
    """
    columns = as_list(results)
    check_one_picture(columns, "a YOLO label file describes one picture; yolo_files(results) returns the text for each")
    classes = {prompt: k for k, prompt in enumerate(_prompts(columns), start=class_id)}
    return _yolo(columns, classes, tolerance)


def yolo_files(results: Results, *, tolerance: float = 0.0) -> dict[str, str]:
    """Write YOLO segmentation labels for one picture or many; see `yolo`.

    For a data set with its pictures, see `s3seg.results.yolo_dataset.write_yolo_dataset`.

    Args:
        results: one result or many.
        tolerance: as for `yolo`.

    Returns:
        The text for each picture, by its name (the source, or a name made for it). A picture with nothing on it has an
        empty text. The classes are the prompts of all results in order of appearance, from 0, for every picture.
    """
    columns = as_list(results)
    classes = {prompt: k for k, prompt in enumerate(_prompts(columns))}
    return {picture.name: _yolo(picture.results, classes, tolerance) for picture in group_by_picture(columns)}


def _yolo(results: Iterable[Columns], classes: dict[str, int], tolerance: float) -> str:
    lines = []
    for result in results:
        height, width = result.size
        for rle in result.rles:
            rings = [ring for polygon in masks.polygons(rle, tolerance=tolerance) for ring in polygon]
            if rings:
                path = joined_rings(rings) / np.array([width, height])
                values = " ".join(f"{value:.7g}" for value in path.ravel().tolist())
                lines.append(f"{classes[result.prompt or _UNNAMED]} {values}\n")
    return "".join(lines)


def geojson(results: Results, *, tolerance: float = 0.0) -> dict[str, Any]:
    """Build a GeoJSON FeatureCollection (RFC 7946) with one feature per instance, ready for `json.dump`.

    Coordinates are pixels: x to the right, y down, (0, 0) the top-left corner of the picture. An instance
    with one part is a Polygon, with several a MultiPolygon; an empty mask has no geometry. Each feature names its
    picture ("image"). The collection lists the pictures and prompts, also those where nothing was found.

    Args:
        results: one result or many.
        tolerance: pixels by which outlines may move, to leave out vertices; 0 moves none.
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
                    "geometry": as_geometry(masks.polygons(rle, tolerance=tolerance)),
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
    return encode_label_map(_of_one_picture(results))


def png_binary_mask(results: Results) -> bytes:
    """Encode the pixels in any instance of one picture as a greyscale PNG: 255, and 0 for background.

    Raises:
        InvalidRequestError: as for `png_label_map`.
    """
    return encode_binary_mask(_of_one_picture(results))


def png_palette_mask(results: Results) -> bytes:
    """Encode the label map of one picture as a PNG with a palette, for looking at: the numbers are colours as well.

    Background is 0 and black, instances are 1 to 255; after the 255th, numbers start again at 1.

    Raises:
        InvalidRequestError: as for `png_label_map`.
    """
    return encode_palette_mask(_of_one_picture(results))


def png_class_map(results: Results) -> bytes:
    """Encode which prompt each pixel of one picture belongs to, as a PNG with a palette, for semantic segmentation.

    Background is 0, the first result is 1, the next 2. Where instances of several prompts overlap, the one with the
    higher score has the pixel. Results with the same prompt have the same number.

    Raises:
        InvalidRequestError: as for `png_label_map`, or there are more than 255 prompts.
    """
    return encode_class_map(_of_one_picture(results))


def _of_one_picture(results: Results) -> list[Columns]:
    columns = as_list(results)
    if not columns:
        raise InvalidRequestError("a label map needs at least one result, to know the size of the picture")
    check_one_picture(columns, "make a label map of each picture")
    return columns


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

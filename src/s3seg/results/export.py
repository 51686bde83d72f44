"""Export results to other formats, one function per format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.label_map import encode_label_map
from s3seg.results.polygons import Polygon

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

_UNNAMED = "object"  # the category of results that were prompted with boxes only


def coco(results: Iterable[Columns]) -> dict[str, Any]:
    """Build a COCO instance dataset from any number of results, ready for `json.dump` and `pycocotools.coco.COCO`.

    Results with the same `source` (or, without one, the same picture in memory) share an image entry;
    prompts become categories, in order of appearance. Boxes and areas are those of the masks, as COCO
    requires; scores and the boxes predicted by the network (xyxy) are additional fields. Masks are
    compressed RLE.

    Raises:
        InvalidRequestError: two results name the same source but differ in size.
    """
    results = list(results)
    categories = {prompt: k for k, prompt in enumerate(_prompts(results), start=1)}
    images: dict[Any, dict[str, Any]] = {}
    annotations = []
    for result in results:
        height, width = result.size
        nameless = id(result if result.image is None else result.image)
        fallback = f"image-{len(images) + 1}"
        image = images.setdefault(
            result.source if result.source is not None else nameless,
            {"id": len(images) + 1, "file_name": result.source or fallback, "height": height, "width": width},
        )
        if (image["height"], image["width"]) != result.size:
            raise InvalidRequestError(
                f"two results for {image['file_name']} differ in size: give each picture its own source"
            )
        for rle, score, box in zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True):
            x1, y1, x2, y2 = masks.box(rle)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
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
        "images": list(images.values()),
        "categories": [{"id": k, "name": prompt} for prompt, k in categories.items()],
        "annotations": annotations,
    }


def yolo(result: Columns, *, class_id: int = 0) -> str:
    """Write YOLO segmentation labels: `class x1 y1 x2 y2 ...` with coordinates 0..1, one line per instance.

    A line holds one closed path; the format has no holes and no separate parts. To keep both, the rings of an
    instance are joined by bridges of zero width (there and back along the same line), as YOLO's own
    converters join parts. An even-odd fill reproduces the mask exactly; a fill that also paints the path,
    such as `cv2.fillPoly`, adds a seam one pixel wide. Instances with an empty mask have no line.
    """
    height, width = result.size
    lines = []
    for rle in result.rles:
        rings = [ring for polygon in masks.polygons(rle) for ring in polygon]
        if rings:
            path = _joined(rings) / np.array([width, height])
            lines.append(f"{class_id} " + " ".join(f"{value:.7g}" for value in path.ravel().tolist()))
    return "".join(f"{line}\n" for line in lines)


def geojson(result: Columns) -> dict[str, Any]:
    """Build a GeoJSON FeatureCollection (RFC 7946) with one feature per instance, ready for `json.dump`.

    Coordinates are pixels: x to the right, y down, (0, 0) the top-left corner of the picture. An instance
    with one part is a Polygon, with several a MultiPolygon; an empty mask has no geometry.
    """
    features = []
    columns = zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True)
    for k, (rle, score, box) in enumerate(columns, start=1):
        properties = {"prompt": result.prompt, "score": score, "area": masks.area(rle), "box_xyxy": box}
        features.append(
            {
                "type": "Feature",
                "id": k,
                "bbox": list(masks.box(rle)),
                "geometry": _geometry(masks.polygons(rle)),
                "properties": properties,
            }
        )
    return {"type": "FeatureCollection", "name": result.source or "instances", "features": features}


def png_label_map(result: Columns) -> bytes:
    """Encode the label map as a greyscale PNG; see `s3seg.results.label_map.encode_label_map`."""
    return encode_label_map([result])


def pandas(results: Iterable[Columns]) -> pd.DataFrame:
    """Build a table with one row for each instance of each result.

    Columns: source, prompt, score, x1, y1, x2, y2 (pixels), area (pixels), height, width, rle (COCO counts).

    Raises:
        InvalidRequestError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as err:
        raise InvalidRequestError("to_pandas needs pandas: pip install pandas") from err

    names = ["source", "prompt", "score", "x1", "y1", "x2", "y2", "area", "height", "width", "rle"]
    rows = [
        (result.source, result.prompt, score, *box, masks.area(rle), *result.size, rle.counts)
        for result in results
        for rle, score, box in zip(result.rles, result.scores, result.boxes, strict=True)
    ]
    return pd.DataFrame(rows, columns=names)


def supervision(results: Sequence[Columns]) -> sv.Detections:
    """Convert one or more results on one picture to `supervision.Detections`; `class_id` numbers the prompts from 0.

    The masks are (N, H, W) bool, so they take N × H × W bytes. The prompts are in `data["class_name"]`.

    Raises:
        InvalidRequestError: supervision is not installed, or the results differ in size.
    """
    try:
        import supervision as sv
    except ImportError as err:
        raise InvalidRequestError("to_supervision needs supervision: pip install supervision") from err

    if len({result.size for result in results}) > 1:
        raise InvalidRequestError("these results differ in size, so are not of one picture: convert them one by one")
    classes = {prompt: k for k, prompt in enumerate(_prompts(results))}
    names = [result.prompt or _UNNAMED for result in results for _ in result.rles]
    if not names:
        return sv.Detections.empty()
    return sv.Detections(
        xyxy=np.concatenate([result.boxes for result in results]),
        mask=np.stack([masks.decode(rle) for result in results for rle in result.rles]),
        confidence=np.concatenate([result.scores for result in results]),
        class_id=np.array([classes[name] for name in names]),
        data={"class_name": np.array(names)},
    )


def _prompts(results: Iterable[Columns]) -> list[str]:
    return list(dict.fromkeys(result.prompt or _UNNAMED for result in results))


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """Join all rings into one path (K, 2) that enters and leaves each further ring over the same bridge."""
    path = rings[0]
    for ring in rings[1:]:
        exit_ = _nearest(path, ring[0])
        entry = _nearest(ring, path[exit_])
        exit_ = _nearest(path, ring[entry])
        detour = np.roll(ring, -entry, axis=0)
        path = np.concatenate([path[: exit_ + 1], detour, detour[:1], path[exit_:]])
    return path


def _nearest(vertices: np.ndarray, point: np.ndarray) -> int:
    return int(np.argmin(np.sum((vertices.astype(np.float64) - point) ** 2, axis=1)))


def _geometry(polygons: list[Polygon]) -> dict[str, Any] | None:
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if not closed:
        return None
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}

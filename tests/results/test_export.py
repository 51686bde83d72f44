"""Exports, each read back by the format's own reader or by an independent one."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from s3seg.errors import InvalidRequestError
from s3seg.results import export, masks
from tests.results.small_results import any_result, discs, empty_result, result_of

# pycocotools' compiled arrays lack the copy keyword that NumPy 2 asks for; the values are right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))
HOLED = np.zeros((1, 40, 60), bool)
HOLED[0, 5:25, 5:30] = True
HOLED[0, 10:20, 10:25] = False
HOLED[0, 13:16, 14:18] = True  # an island in the hole
HOLED[0, 30:35, 40:50] = True  # and a part of its own


# ---- COCO ----


def test_pycocotools_loads_the_dataset_and_finds_the_same_masks(tmp_path):
    cats = result_of(STACK, prompt="cat", source="park.png")
    dogs = result_of(HOLED, prompt="dog", source="park.png")
    other = result_of(STACK[:1, :20], prompt="dog", source="street.png")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(export.coco([cats, dogs, other]), allow_nan=False))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(path))

    assert [(i["file_name"], i["height"], i["width"]) for i in dataset.loadImgs(dataset.getImgIds())] == [
        ("park.png", 40, 60),
        ("street.png", 20, 60),
    ]
    assert {c["name"] for c in dataset.loadCats(dataset.getCatIds())} == {"cat", "dog"}
    annotations = dataset.loadAnns(dataset.getAnnIds(catIds=dataset.getCatIds(catNms=["dog"])))
    expected = [HOLED[0], STACK[0, :20]]
    for annotation, mask in zip(annotations, expected, strict=True):
        assert np.array_equal(dataset.annToMask(annotation), mask)
        rle = dataset.annToRLE(annotation)
        assert annotation["area"] == coco_mask.area(rle)
        assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
    assert len(dataset.getAnnIds(imgIds=[1])) == 4
    assert [a["score"] for a in dataset.loadAnns(dataset.getAnnIds(catIds=[1]))] == cats.scores.tolist()


def test_results_without_a_source_share_an_image_when_they_share_the_picture():
    image = np.zeros((40, 60, 3), np.uint8)
    results = [result_of(STACK, image=image), result_of(HOLED, image=image), result_of(STACK)]
    dataset = export.coco(results)
    assert [i["file_name"] for i in dataset["images"]] == ["image-1", "image-2"]
    assert {a["image_id"] for a in dataset["annotations"][:4]} == {1}


def test_a_result_of_boxes_only_is_of_the_category_object():
    assert export.coco([result_of(STACK, prompt="")])["categories"] == [{"id": 1, "name": "object"}]


def test_a_prompt_that_found_nothing_is_a_category_all_the_same():
    dataset = empty_result(prompt="unicorn").to_coco()
    assert (dataset["categories"], dataset["annotations"]) == ([{"id": 1, "name": "unicorn"}], [])


def test_one_source_of_two_sizes_is_refused():
    with pytest.raises(InvalidRequestError, match=r"park\.png differ in size"):
        export.coco([result_of(STACK, source="park.png"), result_of(STACK[:, :20], source="park.png")])


# ---- YOLO ----


def fill_even_odd(path: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill one closed path by ray casting from every pixel centre to the left."""
    centre_y, centre_x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(path, np.roll(path, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (centre_y > min(y0, y1)) & (centre_y < max(y0, y1))
            inside ^= crosses & (centre_x > x0 + (centre_y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def paths_of(text: str, size: tuple[int, int]) -> list[np.ndarray]:
    height, width = size
    return [np.array(line.split()[1:], dtype=float).reshape(-1, 2) * [width, height] for line in text.splitlines()]


@given(any_result())
def test_each_yolo_line_fills_back_to_the_mask_holes_and_parts_included(result):
    paths = paths_of(result.to_yolo(), result.size)
    filled = [fill_even_odd(path.round(), result.size) for path in paths]
    expected = [mask for mask in result.masks if mask.any()]
    assert len(filled) == len(expected)
    assert all(np.array_equal(one, mask) for one, mask in zip(filled, expected, strict=True))


def test_yolo_coordinates_are_relative_and_start_with_the_class():
    (line,) = result_of(HOLED).to_yolo(class_id=7).splitlines()
    values = np.array(line.split()[1:], dtype=float)
    assert line.startswith("7 ")
    assert len(values) % 2 == 0
    assert (values.min(), values.max()) == (pytest.approx(5 / 60), pytest.approx(35 / 40))


def test_opencv_fills_a_yolo_line_to_the_mask_but_for_the_seams():
    (path,) = paths_of(result_of(HOLED).to_yolo(), (40, 60))
    canvas = np.zeros((40, 60), np.uint8)
    cv2.fillPoly(canvas, [path.round().astype(np.int32)], 1)
    overlap = np.sum(canvas.astype(bool) & HOLED[0]) / HOLED.sum()
    outside = np.sum(canvas.astype(bool) & ~HOLED[0])
    assert overlap > 0.99
    assert outside < 0.5 * HOLED.sum()  # fillPoly paints the path itself as well: an edge and the seams
    assert not canvas[17, 20], "the hole stays open"


# ---- GeoJSON ----


def test_geojson_has_closed_rings_holes_and_parts():
    collection = json.loads(json.dumps(result_of([*STACK, *HOLED, np.zeros((40, 60))]).to_geojson()))
    assert collection["type"] == "FeatureCollection"
    kinds = [feature["geometry"] and feature["geometry"]["type"] for feature in collection["features"]]
    assert kinds == ["Polygon"] * 3 + ["MultiPolygon", None]
    parts = collection["features"][3]["geometry"]["coordinates"]
    assert [len(rings) for rings in parts] == [2, 1, 1]
    assert all(ring[0] == ring[-1] and len(ring) >= 4 for rings in parts for ring in rings)
    assert parts[0][0] == [[5, 5], [30, 5], [30, 25], [5, 25], [5, 5]]
    first = collection["features"][0]
    assert first["bbox"] == [2, 2, 18, 18]
    assert first["properties"]["prompt"] == "cat"
    assert first["properties"]["area"] == STACK[0].sum()


# ---- pandas and supervision ----


def test_pandas_has_a_row_for_each_instance():
    result = result_of(STACK, source="park.png")
    table = result.to_pandas()
    assert table["score"].tolist() == result.scores.tolist()
    assert table[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == result.boxes.tolist()
    assert table["area"].tolist() == STACK.sum(axis=(1, 2)).tolist()
    assert set(table["source"]) == {"park.png"}
    decoded = masks.decode(masks.RLE((40, 60), table["rle"][1]))
    assert np.array_equal(decoded, STACK[1])
    assert list(empty_result().to_pandas().columns) == list(table.columns)


def test_supervision_takes_masks_boxes_scores_and_prompts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of at import is not ours
        detections = export.supervision([result_of(STACK, prompt="cat"), result_of(HOLED, prompt="dog")])
    assert np.array_equal(detections.mask, [*STACK, *HOLED])
    assert detections.class_id.tolist() == [0, 0, 0, 1]
    assert detections["class_name"].tolist() == ["cat", "cat", "cat", "dog"]
    assert detections.area.tolist() == [*STACK.sum(axis=(1, 2)), HOLED.sum()]
    assert len(empty_result().to_supervision()) == 0


def test_supervision_refuses_results_of_different_pictures():
    with pytest.raises(InvalidRequestError, match="not of one picture"):
        export.supervision([result_of(STACK), result_of(STACK[:, :20])])


@pytest.mark.parametrize("library", ["pandas", "supervision"])
def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InvalidRequestError, match=f"pip install {library}"):
        getattr(result_of(STACK), f"to_{library}")()

"""COCO datasets read and written, beside pycocotools."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from s3seg.errors import InvalidRequestError, MaskError, S3segError
from s3seg.results import export, masks
from s3seg.results.segmentation import Segmentation
from tests.results.small_results import discs, empty_result, result_of
from tests.results.test_simplify import blobs

# pycocotools' compiled arrays lack the copy keyword that NumPy 2 asks for; the values are right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))


def loaded(dataset: dict, tmp_path) -> COCO:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_what_is_written_is_read_back(tmp_path):
    cats = result_of(STACK, prompt="cat", source="a/park.png")
    dogs = empty_result((40, 60), prompt="dog", source="a/park.png")
    more = result_of(STACK[:1], prompt="dog", source="b/park.png")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(export.coco([cats, dogs, more])))
    back = Segmentation.from_coco(path)
    assert [(one.source, one.prompt) for one in back] == [("a/park.png", "cat"), ("b/park.png", "dog")]
    assert back[0].rles == cats.rles
    assert np.array_equal(back[0].scores, cats.scores)
    assert np.array_equal(back[0].boxes, cats.boxes)
    everything = Segmentation.from_coco(path, empty_results=True)
    assert [(one.source, one.prompt, len(one)) for one in everything] == [
        ("a/park.png", "cat", 3),
        ("a/park.png", "dog", 0),
        ("b/park.png", "cat", 0),
        ("b/park.png", "dog", 1),
    ]


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9), smooth=st.floats(0.5, 4))
def test_pycocotools_fills_exact_polygons_to_the_same_mask_holes_included(seed, share, smooth):
    mask = blobs(seed, 40, 60, smooth=smooth, share=share)
    (annotation,) = export.coco(result_of([mask]), polygons=True)["annotations"]
    rle = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], 40, 60))
    assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)
    (back,) = Segmentation.from_coco(export.coco(result_of([mask]), polygons=True))
    assert np.array_equal(back[0].mask, mask)


def test_polygons_with_a_tolerance_are_near_the_mask(tmp_path):
    (mask,) = discs(300, 300, (150, 150, 120))
    result = result_of([mask], source="disc.png")
    exact, simple = (result.to_coco(polygons=True, tolerance=tolerance) for tolerance in (0, 1.5))
    dataset = loaded(simple, tmp_path)
    filled = dataset.annToMask(dataset.anns[1]).astype(bool)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.98
    lengths = [len(one["annotations"][0]["segmentation"][0]) for one in (exact, simple)]
    assert lengths[1] * 8 < lengths[0]
    assert simple["annotations"][0]["area"] == mask.sum()


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.floats(-5, 70), st.floats(-5, 50)), min_size=3, max_size=8), min_size=1, max_size=3)
)
def test_polygons_of_other_tools_are_filled_as_pycocotools_does(polygons):
    segmentation = [[float(side) for vertex in polygon for side in vertex] for polygon in polygons]
    rle = masks.from_coco_polygons(segmentation, (40, 60))
    expected = coco_mask.merge(coco_mask.frPyObjects(segmentation, 40, 60))
    assert np.array_equal(masks.decode(rle), coco_mask.decode(expected).astype(bool))


def test_ground_truth_of_another_tool_is_read():
    counts = masks.decode(masks.encode(STACK[0])).ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], counts.astype(np.int8), [0]])))
    runs = np.diff(np.concatenate([[0], edges, [counts.size]])).tolist()
    dataset = {
        "images": [{"id": 7, "file_name": "x.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "segmentation": {"size": [40, 60], "counts": runs},
                "iscrowd": 1,
            },
            {"id": 2, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]], "bbox": [1, 1, 8, 8]},
        ],
    }
    (result,) = Segmentation.from_coco(dataset)
    assert np.array_equal(result[0].mask, STACK[0])
    assert result[1].box == (1, 1, 9, 9)
    assert result.scores.tolist() == [1, 1]


def test_base_names_leave_out_folders_and_refuse_to_mix_up_pictures():
    one, other = (result_of(STACK[:1], source=f"{name}/img.png") for name in "ab")
    assert one.to_coco(base_names=True)["images"][0]["file_name"] == "img.png"
    url = result_of(STACK[:1], source="https://example.org/a/img.png?size=1")
    assert url.to_coco(base_names=True)["images"][0]["file_name"] == "img.png"
    with pytest.raises(InvalidRequestError, match=r"a/img\.png and b/img\.png have the same file name"):
        export.coco([one, other], base_names=True)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"annotations": None}, InvalidRequestError, "needs the lists"),
        ({"annotations": [{"image_id": 9, "category_id": 1}]}, InvalidRequestError, "no picture or category"),
        ({"images": [{"file_name": "x"}]}, InvalidRequestError, "has no id"),
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, InvalidRequestError, "no mask"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[1, 2, 3]]}]}, MaskError, "polygon"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "segmentation": ["abcdef"]}]}, MaskError, "polygon"),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 1e9, 1, 1, 1]]}]},
            MaskError,
            "near",
        ),
        ({"annotations": [{"image_id": [], "category_id": 1}]}, InvalidRequestError, "no picture"),
        ({"images": [{"id": 1, "file_name": "x", "height": 10**9, "width": 10**9}]}, MaskError, "pixels"),
    ],
)
def test_a_malformed_dataset_is_an_error_that_says_where(change, kind, message):
    dataset = result_of(STACK, source="park.png").to_coco() | change
    with pytest.raises(kind, match=message):
        Segmentation.from_coco(dataset)


def test_other_json_is_not_taken_for_a_dataset(tmp_path):
    path = tmp_path / "x.json"
    for content in ("[]", "{}", "nonsense", '{"images": [], "categories": [], "annotations": [1]}'):
        path.write_text(content)
        with pytest.raises(S3segError, match=r"x\.json"):
            Segmentation.from_coco(path)


def test_an_empty_mask_is_an_rle_among_polygons():
    mask = np.zeros((20, 30), bool)
    mask[5:9, 4:12] = True
    result = result_of([mask, np.zeros((20, 30))])
    document = export.coco(result, polygons=True)
    full, empty = document["annotations"]
    assert isinstance(full["segmentation"], list)
    assert coco_mask.decode(empty["segmentation"]).sum() == 0
    (back,) = Segmentation.from_coco(document)
    assert [one.area for one in back] == [32, 0]

"""RLE against pycocotools, polygons against ray casting; hostile input may only raise MaskError."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pycocotools.mask as coco
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from s3seg.errors import MaskError
from s3seg.results import masks
from s3seg.results.masks import RLE
from s3seg.results.polygons import Polygon

# pycocotools' compiled arrays lack the copy keyword that NumPy 2 asks for; the values are right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

any_mask = npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=17))


@st.composite
def same_size_masks(draw: st.DrawFn) -> list[np.ndarray]:
    shape = draw(npst.array_shapes(min_dims=2, max_dims=2, max_side=12))
    return draw(st.lists(npst.arrays(np.bool_, shape), min_size=1, max_size=4))


def by_pycocotools(mask: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


# ---- encode, decode, measure ----


@given(any_mask)
def test_encoding_is_what_pycocotools_writes_and_decodes_back(mask):
    rle = masks.encode(mask)
    assert rle.counts == by_pycocotools(mask)["counts"].decode()
    assert rle.size == mask.shape
    decoded = masks.decode(rle)
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, mask)
    assert np.array_equal(coco.decode(masks.to_coco(rle)), mask)


@given(any_mask)
def test_area_and_box_are_those_of_pycocotools(mask):
    rle = masks.encode(mask)
    oracle = by_pycocotools(mask)
    x, y, w, h = coco.toBbox(oracle).tolist() if mask.any() else (0, 0, 0, 0)
    assert masks.area(rle) == coco.area(oracle)
    assert masks.box(rle) == (x, y, x + w, y + h)


def test_the_box_of_a_full_mask_reaches_the_exclusive_right_and_bottom():
    assert masks.box(masks.encode(np.ones((3, 5), bool))) == (0, 0, 5, 3)


@given(same_size_masks())
def test_union_and_intersection_are_any_and_all(stack):
    rles = [masks.encode(m) for m in stack]
    assert masks.union(rles) == masks.encode(np.any(stack, axis=0))
    assert masks.intersection(rles) == masks.encode(np.all(stack, axis=0))


@given(same_size_masks())
def test_iou_is_that_of_pycocotools(stack):
    rles = [masks.encode(m) for m in stack]
    oracle = [by_pycocotools(m) for m in stack]
    expected = np.nan_to_num(coco.iou(oracle, oracle, [0] * len(oracle)))
    assert np.allclose(masks.iou(rles, rles), expected, rtol=0, atol=1e-12)


def test_iou_with_no_masks_has_no_rows():
    assert masks.iou([], [masks.encode(np.ones((2, 2), bool))]).shape == (0, 1)


@given(any_mask, st.tuples(*[st.integers(0, 5)] * 4))
def test_a_crop_encodes_as_the_full_mask_would(crop, margins):
    top, left, bottom, right = margins
    full = np.pad(crop, ((top, bottom), (left, right)))
    assert masks.encode(crop, offset=(top, left), size=full.shape) == masks.encode(full)


@given(any_mask)
def test_the_decoded_box_holds_the_whole_mask_and_nothing_around_it(mask):
    crop, (y, x) = masks.decode_box(masks.encode(mask))
    full = np.zeros_like(mask)
    full[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    assert np.array_equal(full, mask)
    assert not crop.size or (crop[0].any() and crop[-1].any() and crop[:, 0].any() and crop[:, -1].any())


@pytest.mark.parametrize("offset", [(-1, 0), (0, -1), (7, 0), (0, 8)])
def test_a_crop_that_reaches_outside_is_refused(offset):
    with pytest.raises(MaskError, match="reaches outside"):
        masks.encode(np.ones((4, 3), bool), offset=offset, size=(10, 10))


@pytest.mark.parametrize("mask", [np.ones((2, 2)), np.ones((2, 2, 2), bool), np.ones((0, 3), bool)])
def test_only_two_dimensional_binary_arrays_can_be_encoded(mask):
    with pytest.raises(MaskError, match="2-D bool or uint8"):
        masks.encode(mask)


def test_masks_of_different_sizes_cannot_be_combined():
    one, other = masks.encode(np.ones((2, 3), bool)), masks.encode(np.ones((3, 2), bool))
    for combine in (masks.union, masks.intersection, lambda rles: masks.iou(rles[:1], rles[1:])):
        with pytest.raises(MaskError, match="different sizes"):
            combine([one, other])


# ---- COCO dictionaries, malformed and hostile ones ----


@given(any_mask)
def test_coco_dictionaries_round_trip_through_json(mask):
    rle = masks.encode(mask)
    assert masks.from_coco(json.loads(json.dumps(masks.to_coco(rle)))) == rle
    assert masks.from_coco(by_pycocotools(mask)) == rle


@given(any_mask)
def test_uncompressed_counts_are_read(mask):
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    counts = [0, *counts] if flat[0] else counts
    assert masks.from_coco({"size": list(mask.shape), "counts": counts}) == masks.encode(mask)


def test_runs_of_length_zero_are_merged_away():
    plain = masks.encode(np.array([[0, 1, 0], [0, 1, 0]], bool))
    padded = {"size": [2, 3], "counts": [0, 0, 2, 1, 0, 1, 2, 0]}
    assert masks.from_coco(padded) == plain
    packed = coco.frPyObjects(padded, 2, 3)
    assert packed["counts"] != plain.counts.encode()
    assert masks.from_coco(packed) == plain


@given(any_mask, st.data())
def test_counts_with_a_changed_character_either_describe_a_mask_exactly_or_are_refused(mask, data):
    counts = list(masks.encode(mask).counts)
    where = data.draw(st.integers(0, len(counts) - 1))
    counts[where : where + 1] = data.draw(st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=3))
    try:
        rle = RLE(mask.shape, "".join(counts))
    except MaskError:
        return
    assert np.array_equal(masks.decode(rle), coco.decode(masks.to_coco(rle)))
    assert masks.area(rle) == masks.decode(rle).sum()


@given(st.text(max_size=12), any_mask)
@example("\x00", np.ones((1, 1), bool))
@example("o" * 12, np.ones((3, 4), bool))
def test_any_text_as_counts_is_read_or_refused(counts, mask):
    try:
        rle = RLE(mask.shape, counts)
    except MaskError:
        return
    assert masks.decode(rle).shape == mask.shape


@pytest.mark.parametrize(
    ("rle", "why"),
    [
        ({"size": [3, 4], "counts": "34"}, "add up"),  # 7 of 12 pixels
        ({"size": [3, 4], "counts": "345O"}, "compressed form|add up"),
        ({"size": [3, 4], "counts": "3é5"}, "compressed form"),
        ({"size": [3, 4], "counts": "34\x1f"}, "compressed form"),
        ({"size": [3, 4], "counts": "34o"}, "compressed form"),  # ends inside a number
        ({"size": [3, 4], "counts": "oooooooo0"}, "too large"),
        ({"size": [3, 4], "counts": ""}, "cannot describe"),
        ({"size": [1, 1], "counts": "0" * 100}, "cannot describe"),
        ({"size": [3, 4], "counts": [3, 4]}, "add up to 7"),
        ({"size": [3, 4], "counts": [20, -8]}, "run lengths"),
        ({"size": [3, 4], "counts": [11.0, 1]}, "run lengths"),
        ({"size": [3, 4], "counts": [10**30]}, "run lengths"),
        ({"size": [3, 4], "counts": 12}, "run lengths"),
        ({"size": [3, 4]}, "'size' and 'counts'"),
        ({"size": [3], "counts": "<"}, "two whole numbers"),
        ({"size": [3.5, 4], "counts": "<"}, "two whole numbers"),
        ({"size": "34", "counts": "<"}, "two whole numbers"),
        ({"size": None, "counts": "<"}, "two whole numbers"),
        ({"size": [True, 12], "counts": "<"}, "two whole numbers"),
        ({"size": [0, 4], "counts": "0"}, "between 1"),
        ({"size": [-3, -4], "counts": "<"}, "between 1"),
        ({"size": [10**9, 10**9], "counts": "0"}, "between 1"),
        ("not a dictionary", "dictionary"),
    ],
)
def test_a_malformed_rle_is_a_mask_error_that_says_why(rle, why):
    with pytest.raises(MaskError, match=why):
        masks.from_coco(rle)


# ---- label maps ----


@given(same_size_masks())
def test_in_a_label_map_the_earlier_mask_wins(stack):
    labels = masks.label_map([masks.encode(m) for m in stack], stack[0].shape)
    expected = np.where(np.any(stack, axis=0), np.argmax(stack, axis=0) + 1, 0)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize(("count", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_a_label_map_of_more_than_255_masks_is_16_bit(count, dtype):
    size = (20, 20)
    rles = [masks.encode(np.ones((1, 1), bool), offset=divmod(k, 20), size=size) for k in range(count)]
    labels = masks.label_map(rles, size)
    assert labels.dtype == dtype
    assert labels.ravel()[:count].tolist() == list(range(1, count + 1))


def test_a_label_map_needs_masks_of_its_own_size():
    with pytest.raises(MaskError, match="mask 1 has size"):
        masks.label_map([masks.encode(np.ones((2, 2), bool))], (3, 3))


# ---- polygons ----


def even_odd(polygon: Polygon, shape: tuple[int, int]) -> np.ndarray:
    """Fill by ray casting from every pixel centre to the left: an odd number of edges crossed is inside."""
    centre_y, centre_x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for ring in polygon:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            assert (x0 == x1) != (y0 == y1), "edges run along the grid, and turn at every vertex"
            if x0 == x1:
                inside ^= (centre_x > x0) & (centre_y > min(y0, y1)) & (centre_y < max(y0, y1))
    return inside


def signed_area(ring: np.ndarray) -> float:
    x, y = ring[:, 0].astype(float), ring[:, 1].astype(float)
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


@given(any_mask)
def test_every_polygon_fills_back_to_one_connected_part_of_the_mask(mask):
    polygons = masks.polygons(masks.encode(mask))
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert len(polygons) == count - 1
    for polygon in polygons:
        filled = even_odd(polygon, mask.shape)
        assert np.array_equal(filled, parts == parts[filled][0])


@given(any_mask)
def test_exteriors_turn_one_way_holes_the_other_and_no_ring_touches_itself(mask):
    for exterior, *holes in masks.polygons(masks.encode(mask)):
        assert signed_area(exterior) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
        for ring in (exterior, *holes):
            assert len(np.unique(ring, axis=0)) == len(ring)
            assert ring.dtype == np.int32


def test_a_ring_with_an_island_gives_a_hole_and_a_second_polygon():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    mask[2:5, 2:5] = False
    mask[3, 3] = True
    outer, island = masks.polygons(masks.encode(mask))
    assert [ring.tolist() for ring in outer] == [
        [[1, 1], [6, 1], [6, 6], [1, 6]],
        [[2, 2], [2, 5], [5, 5], [5, 2]],
    ]
    assert [ring.tolist() for ring in island] == [[[3, 3], [4, 3], [4, 4], [3, 4]]]


def test_an_empty_mask_has_no_polygons():
    assert masks.polygons(masks.encode(np.zeros((3, 3), bool))) == []

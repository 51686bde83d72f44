"""Tiles: windows of masks without pixels, the plan, stitching, and small things found on a drawing."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import s3seg
from s3seg.errors import InvalidRequestError
from s3seg.inference.stitching import Piece, is_cut, stitch
from s3seg.inference.tile_plan import OVERLAP, plan_tiles
from s3seg.results import masks
from s3seg.results.windows import common, crop, place
from train_small_sam3.shapes import draw_shape

SIZE = (200, 300)
TILES = plan_tiles(SIZE, 120, input_side=256)


@given(npst.arrays(np.bool_, (9, 11)), st.integers(0, 8), st.integers(0, 10), st.integers(1, 9), st.integers(1, 11))
def test_a_window_of_a_mask_has_its_pixels(mask, y, x, height, width):
    window = (y, x, min(9, y + height), min(11, x + width))
    part = crop(masks.encode(mask), window)
    assert np.array_equal(masks.decode(part), mask[y : window[2], x : window[3]])


@given(npst.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))), st.integers(0, 5), st.integers(0, 5))
def test_a_placed_mask_has_its_pixels_and_no_other(mask, y, x):
    placed = place(masks.encode(mask), (y, x), (12, 12))
    expected = np.zeros((12, 12), bool)
    expected[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    assert np.array_equal(masks.decode(placed), expected)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(64, 800))
def test_tiles_cover_the_picture_and_overlap(height, width, side):
    tiles = plan_tiles((height, width), side, input_side=256)
    if not tiles:
        assert max(height, width) <= side
        return
    for axis, length in ((0, height), (1, width)):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(side, length)}
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= OVERLAP * side - 1


def test_auto_tiles_have_the_side_of_the_input_where_the_picture_is_larger():
    assert plan_tiles((300, 380), "auto", input_side=256) == []
    assert {(y2 - y1, x2 - x1) for y1, x1, y2, x2 in plan_tiles((300, 400), "auto", input_side=256)} == {(256, 256)}


@pytest.mark.parametrize("tile", ["all", 0, 31, 64.0, True, -5])
def test_what_is_no_tile_is_refused(seg, tile):
    with pytest.raises(InvalidRequestError, match="tile"):
        seg.segment(np.zeros((8, 8, 3), np.uint8), "car", tile=tile)


def test_too_many_tiles_and_boxes_with_tiles_are_refused(seg):
    with pytest.raises(InvalidRequestError, match="choose larger ones"):
        plan_tiles((16000, 16000), 64, input_side=256)
    with pytest.raises(InvalidRequestError, match="boxes cannot be used with tile"):
        seg.segment(np.zeros((8, 8, 3), np.uint8), boxes=[(0, 0, 4, 4)], tile=64)


# ---- stitching ----


def rectangle(y1, x1, y2, x2) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def seen(mask: np.ndarray, score: float = 0.8) -> list[Piece]:
    """What each tile shows of a thing."""
    pieces = []
    for number, (y1, x1, y2, x2) in enumerate(TILES):
        part = mask[y1:y2, x1:x2]
        if part.any():
            rle = place(masks.encode(part), (y1, x1), SIZE)
            box = np.array(masks.box(rle))
            pieces.append(Piece(rle, box, score, number, is_cut(rle, TILES[number], SIZE)))
    return pieces


def whole(mask: np.ndarray, score: float = 0.5) -> Piece:
    rle = masks.encode(mask)
    return Piece(rle, np.array(masks.box(rle)), score)


@given(st.integers(0, 180), st.integers(0, 280), st.integers(4, 60), st.integers(4, 60))
def test_a_thing_that_several_tiles_show_is_one(y, x, height, width):
    mask = rectangle(y, x, min(200, y + height), min(300, x + width))
    (one,) = stitch(seen(mask), TILES, [])
    assert np.array_equal(masks.decode(one.rle), mask)
    assert one.box.tolist() == list(masks.box(one.rle))
    assert one.score == 0.8


def test_a_thing_larger_than_a_tile_is_taken_from_the_whole_picture():
    mask = rectangle(10, 10, 190, 280)
    kept = stitch(seen(mask, score=0.9), TILES, [whole(mask)])
    assert [one.score for one in kept] == [0.5]


def test_neighbours_that_nearly_touch_stay_apart():
    one, other = rectangle(90, 100, 110, 119), rectangle(90, 121, 110, 140)
    assert len(stitch([*seen(one), *seen(other)], TILES, [])) == 2


def test_many_small_things_that_look_like_one_from_afar_stay_many():
    things = [rectangle(20 + 12 * k, 130, 30 + 12 * k, 160) for k in range(6)]
    blob = rectangle(18, 128, 94, 162)
    kept = stitch([piece for thing in things for piece in seen(thing)], TILES, [whole(blob)])
    assert len(kept) == 6


def test_what_only_the_whole_picture_shows_is_kept_and_what_both_show_is_one():
    shown, hidden = rectangle(20, 20, 40, 40), rectangle(20, 200, 40, 230)
    kept = stitch(seen(shown), TILES, [whole(shown), whole(hidden)])
    assert sorted(one.score for one in kept) == [0.5, 0.8]


def test_a_sliver_that_a_tile_sees_of_a_thing_is_no_second_thing():
    mask = rectangle(20, 60, 60, 110)
    sliver = Piece(masks.encode(rectangle(30, 105, 36, 112)), np.zeros(4), 0.9, 1, is_cut=True)
    assert len(stitch([*seen(mask)[:1], sliver], TILES, [])) == 1


def test_windows_that_only_touch_have_nothing_in_common():
    assert common((0, 0, 5, 5), (0, 5, 5, 9)) is None
    assert common((0, 0, 5, 5), (3, 4, 9, 9)) == (3, 4, 5, 5)


# ---- with the network ----


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, list[masks.RLE]]:
    """Thirty-six red circles of 50 pixels on paper of 1,500."""
    rng = np.random.default_rng(0)
    image = np.full((1500, 1500, 3), 235, np.uint8)
    truth = []
    for y in range(6):
        for x in range(6):
            patch = draw_shape("circle", "red", "solid", radius=25, rng=rng)
            top, left = (60 + 240 * k + int(rng.integers(0, 100)) for k in (y, x))
            alpha = patch[..., 3:] / 255
            window = image[top : top + 50, left : left + 50]
            image[top : top + 50, left : left + 50] = patch[..., :3] + window * (1 - alpha)
            truth.append(masks.encode(patch[..., 3] > 127, offset=(top, left), size=(1500, 1500)))
    return image, truth


def found(result, truth) -> int:
    return int((masks.iou(truth, list(result.rles)).max(axis=1, initial=0) > 0.5).sum())


def test_tiles_find_small_things_that_the_whole_picture_does_not_show(seg, scene):
    image, truth = scene
    plain = seg.segment(image, "red circle")
    assert found(plain, truth) < 12
    tiled = seg.segment(image, "red circle", tile=400)
    assert found(tiled, truth) >= 33
    assert len(tiled) <= 38
    assert list(tiled.scores) == sorted(tiled.scores, reverse=True)
    assert tiled.timings["image"] > plain.timings["image"]
    best = seg.segment(seg.encode(image), ["red circle", "blue star"], tile=400, max_instances=5)
    assert best[0].rles == tiled[:5].rles
    assert len(best[1]) == 0
    ((_, many),) = seg.segment_many([image], "red circle", tile=400)
    assert many.rles == tiled.rles


def test_no_mask_of_the_size_of_the_picture_is_made(seg, scene, monkeypatch):
    image, _ = scene

    def refuse(*_, **__):
        raise AssertionError("decoded")

    for name in ("decode", "decode_box", "encode"):
        monkeypatch.setattr(masks, name, refuse)
    seg.segment(image, "red circle", tile=400)


def test_hundreds_of_instances_take_little_memory():
    size, tiles = (4000, 4000), plan_tiles((4000, 4000), 500, input_side=256)
    spot = masks.encode(np.ones((20, 20), bool))
    corners = [(40 * y + 5, 40 * x + 5) for y in range(20) for x in range(20)]
    tracemalloc.start()
    pieces = [Piece(place(spot, corner, size), np.zeros(4), 0.5, 0) for corner in corners]
    kept = stitch(pieces, tiles, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept) == 400
    assert peak < 4000 * 4000  # less than one mask of bytes

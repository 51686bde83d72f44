"""A result: its order, its behaviour as a sequence, its JSON and files, how it shows itself."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from s3seg.errors import InvalidRequestError, MaskError
from s3seg.results import instances_file, masks
from s3seg.results.hints import Hint
from s3seg.results.segmentation import Instance, Segmentation
from tests.results.small_results import any_result, discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))

# ---- order and validation ----


@given(any_result())
def test_instances_come_by_falling_score_and_equal_scores_keep_their_order(result):
    assert np.all(np.diff(result.scores) <= 0)
    again = result_of([np.zeros(result.size)], rles=result.rles, boxes=result.boxes, scores=result.scores)
    assert again.rles == result.rles
    assert np.array_equal(again.boxes, result.boxes)


def test_sorting_moves_masks_boxes_and_scores_together():
    result = result_of(STACK, scores=[0.2, 0.9, 0.2])
    assert result.rles == tuple(masks.encode(STACK[k]) for k in (1, 0, 2))
    assert result.boxes.tolist() == [list(masks.box(rle)) for rle in result.rles]
    assert np.array_equal(result.scores, np.float32([0.9, 0.2, 0.2]))


def test_columns_are_float32_and_read_only():
    result = result_of(STACK)
    for column in (result.boxes, result.scores):
        assert column.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_the_arrays_given_stay_writable_and_are_not_shared():
    scores = np.float32([0.9, 0.8, 0.7])
    result = result_of(STACK, scores=scores)
    scores[0] = 0
    assert result.scores[0] == np.float32(0.9)


@pytest.mark.parametrize(
    ("columns", "error", "why"),
    [
        ({"scores": [0.5]}, InvalidRequestError, "3 masks, 3 boxes, 1 scores"),
        ({"scores": [0.5, 0.5, 1.5]}, InvalidRequestError, "0..1"),
        ({"scores": [0.5, 0.5, np.nan]}, InvalidRequestError, "0..1"),
        ({"presence": -0.1}, InvalidRequestError, "0..1"),
        ({"threshold": float("nan")}, InvalidRequestError, "threshold"),
        ({"threshold": float("inf")}, InvalidRequestError, "threshold"),
        ({"boxes": np.full((3, 4), np.inf)}, InvalidRequestError, "finite"),
        ({"size": (60, 40)}, MaskError, "a mask has size"),
        ({"size": (0, 40)}, MaskError, "between 1"),
        ({"image": np.zeros((40, 60, 4), np.uint8)}, InvalidRequestError, "picture"),
        ({"image": np.zeros((40, 60, 3))}, InvalidRequestError, "picture"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, error, why):
    with pytest.raises(error, match=why):
        result_of(STACK, **columns)


# ---- a sequence ----


def test_it_is_a_sequence_of_instances():
    result = result_of(STACK)
    assert len(result) == 3
    assert result
    assert [instance.score for instance in result] == result.scores.tolist()
    assert result[-1].rle == result.rles[2]
    with pytest.raises(IndexError):
        result[3]


def test_an_instance_knows_its_mask_area_box_and_polygons():
    instance = result_of(STACK)[0]
    assert isinstance(instance, Instance)
    assert np.array_equal(instance.mask, STACK[0])
    assert instance.area == STACK[0].sum()
    assert instance.box == masks.box(instance.rle)
    assert len(instance.polygons()) == 1
    assert repr(instance).startswith("Instance('cat', score=0.900, box=(2.0, 2.0, 18.0, 18.0)")


def test_a_slice_is_a_result_with_the_same_attributes():
    result = result_of(STACK, hints=(Hint("other", "a hint"),), timings={"encode": 3.5})
    tail = result[1:]
    assert isinstance(tail, Segmentation)
    assert tail.rles == result.rles[1:]
    assert np.array_equal(tail.boxes, result.boxes[1:])
    assert (tail.hint, tail.timings) == ("a hint", {"encode": 3.5})
    assert result[:] == result


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        ([0, 1], [0, 1]),
        ([2, 0], [0, 2]),  # sorted by score again
        ([-1], [2]),
        ([], []),
        (np.array([0, 2]), [0, 2]),
        (np.array([2], np.uint8), [2]),
        (np.array([], int), []),
        ([np.int64(1), 2], [1, 2]),
        (range(2), [0, 1]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        ([False, False, False], []),
        (slice(None, None, -2), [0, 2]),
        (slice(-2, None), [1, 2]),
        (slice(7, 9), []),
    ],
)
def test_a_list_an_array_or_a_mask_as_index_gives_a_result(index, kept):
    result = result_of(STACK, hints=(Hint("other", "a hint"),), source="park.png", image_id="pixels:aa")
    some = result[index]
    assert isinstance(some, Segmentation)
    assert some.rles == tuple(result.rles[k] for k in kept)
    assert np.array_equal(some.boxes, result.boxes[kept])
    assert (some.hint, some.source, some.image_id) == ("a hint", "park.png", "pixels:aa")


def test_a_mask_of_scores_chooses_instances():
    result = result_of(STACK)
    assert result[result.scores > 0.5].scores.tolist() == result.scores[:2].tolist()
    nothing = empty_result()
    assert nothing[nothing.scores > 0.5] == nothing[[]] == nothing


@pytest.mark.parametrize("index", [1, np.int64(1), np.uint8(1), np.array(1), -2])
def test_a_whole_number_of_any_kind_gives_an_instance(index):
    assert result_of(STACK)[index] == result_of(STACK)[1]


@pytest.mark.parametrize("index", [3, -4, np.int64(3), [0, 3], [-4], [True, False], np.zeros(4, bool)])
def test_an_index_outside_the_result_is_an_index_error(index):
    with pytest.raises(IndexError, match=r"(has|takes) 3"):
        result_of(STACK)[index]


@pytest.mark.parametrize("index", [1.0, "0", True, np.True_, None, (0, 1), [0.5], ["a"], [[0, 1]], {0}, STACK])
def test_an_index_of_another_kind_is_a_type_error_with_the_ways_there_are(index):
    with pytest.raises(TypeError, match=r"r\[\[0, 2\]\]"):
        result_of(STACK)[index]


def test_it_can_be_reversed_searched_and_unpacked():
    result = result_of(STACK)
    assert list(reversed(result)) == [result[2], result[1], result[0]]
    assert result[1] in result
    first, *rest = result
    assert (first, len(rest)) == (result[0], 2)


@pytest.mark.parametrize("limit", [{"min_score": float("nan")}, {"min_area": np.nan}, {"max_area": float("nan")}])
def test_a_limit_that_is_not_a_number_is_refused(limit):
    with pytest.raises(InvalidRequestError, match="must be a number"):
        result_of(STACK).filter(**limit)


def test_an_empty_result_is_false_and_every_method_works_on_it():
    result = empty_result((4, 5), image=np.zeros((4, 5, 3), np.uint8))
    assert not result
    assert list(result) == []
    assert result.masks.shape == (0, 4, 5)
    assert not result.union().any()
    assert result.filter(min_score=0.5) == result
    assert result.crops() == []
    assert result.overlay().size == (5, 4)
    assert result.to_yolo() == ""
    assert result.to_polygons() == []
    assert result.to_geojson()["features"] == []


def test_filtering_by_score_area_and_predicate():
    result = result_of(STACK, scores=[0.9, 0.6, 0.5])
    areas = STACK.sum(axis=(1, 2))
    assert result.filter(min_score=0.6).scores.tolist() == np.float32([0.9, 0.6]).tolist()
    assert [i.area for i in result.filter(min_area=int(areas[0]))] == [areas[0], areas[1]]
    assert [i.area for i in result.filter(max_area=int(areas[0]))] == [areas[0], areas[2]]
    assert [i.area for i in result.filter(lambda i: i.box[0] > 10, min_area=100)] == [areas[1]]


@given(any_result())
def test_masks_union_and_label_map_agree(result):
    stack = result.masks
    assert stack.shape == (len(result), *result.size)
    assert stack.dtype == np.bool_
    assert np.array_equal(stack.any(axis=0), result.union())
    assert np.array_equal(result.label_map() > 0, result.union())


# ---- equality, JSON, files ----


@given(any_result())
def test_json_keeps_every_bit(result):
    again = Segmentation.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again == result
    assert again.boxes.tobytes() == result.boxes.tobytes()
    assert again.scores.tobytes() == result.scores.tobytes()
    assert again.image_id == result.image_id


@pytest.mark.parametrize("again", [lambda r: pickle.loads(pickle.dumps(r)), copy.copy, copy.deepcopy])
def test_pickling_and_copying_keep_it(again):
    image = np.full((40, 60, 3), 7, np.uint8)
    result = result_of(STACK, image=image, image_id="pixels:aa", source="park.png", timings={"encode": 3.5})
    assert again(result) == result
    assert again(result).image_id == "pixels:aa"
    assert np.array_equal(again(result).image, image)
    assert again(result[0]) == result[0]
    assert again(empty_result()) == empty_result()


def test_the_picture_is_no_part_of_equality_nor_of_json():
    image = np.full((40, 60, 3), 7, np.uint8)
    with_picture, without = result_of(STACK, image=image), result_of(STACK)
    assert with_picture == without
    assert with_picture.to_dict() == without.to_dict()


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "dog"},
        {"scores": [0.9, 0.8, 0.7]},
        {"boxes": np.zeros((3, 4))},
        {"hints": (Hint("other", "?"),)},
        {"presence": 0.5},
    ],
)
def test_results_that_differ_in_anything_else_are_not_equal(other):
    assert result_of(STACK) != result_of(STACK, **other)


def test_it_saves_and_loads_json(tmp_path):
    result = result_of(STACK, prompt="고양이", source="park.png")
    assert Segmentation.load(result.save(tmp_path / "park.json")) == result
    assert [path.name for path in tmp_path.iterdir()] == ["park.json"]


@pytest.mark.parametrize(("count", "dtype"), [(3, np.uint8), (300, np.uint16)])
def test_a_png_is_its_label_map(tmp_path, count, dtype):
    stack = np.zeros((count, 20, 20), bool)
    stack.reshape(count, -1)[np.arange(count), np.arange(count)] = True
    path = result_of(stack).save(tmp_path / "labels.PNG")
    with Image.open(path) as png:
        labels = np.array(png)
    assert labels.dtype == dtype
    assert labels.ravel()[:count].tolist() == list(range(1, count + 1))


def test_another_suffix_is_refused_with_the_ways_there_are(tmp_path):
    with pytest.raises(InvalidRequestError, match=r"\.txt.*\.json keeps everything.*overlay\(\)"):
        result_of(STACK).save(tmp_path / "labels.txt")


def test_a_file_name_that_is_not_text_can_be_saved(tmp_path):
    result = result_of(STACK, source="caf\udce9.png")
    assert Segmentation.load(result.save(tmp_path / "result.json")) == result


def test_saving_into_a_folder_that_is_not_there_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        result_of(STACK).save(tmp_path / "nowhere" / "result.json")
    assert caught.value.filename == str(tmp_path / "nowhere" / "result.json")


def test_saving_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    unsaveable = result_of(STACK, timings={"encode": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        unsaveable.save(path)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OSError):
        result_of(STACK).save(tmp_path / "folder.json")  # a folder stands in the way of the rename
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.json", "result.json"]


@pytest.mark.parametrize(
    "damage",
    [
        {"format": "something else"},
        {"instances": [{}]},
        {"instances": 3},
        {"instances": [{"score": 0.5, "box": [1, 2, 3], "rle": {"size": [40, 60], "counts": [2400]}}]},
        {"instances": [{"score": "a", "box": [1, 2, 3, 4], "rle": {"size": [40, 60], "counts": [2400]}}]},
        {"instances": [{"score": 0.5, "box": [1, 2, 3, 1e300], "rle": {"size": [40, 60], "counts": [2400]}}]},
        {"instances": [{"score": 0.5, "box": [1, 2, 3, 4], "rle": {"size": [40, 60], "counts": [24]}}]},
        {"size": [10**9, 10**9]},
        {"size": 3},
        {"prompt": 3},
        {"presence": "high"},
        {"threshold": None},
        {"model": None},
        {"model": {"name": "x"}},
        {"model": {"name": "x", "version": "1", "device": "cpu", "dtype": "float32", "summary": 7}},
        {"timings": [1, 2]},
        {"hint": 1},
        {"hints": 1},
        {"hints": ["text"]},
        {"hints": [{"kind": "other", "text": 1, "words": []}]},
        {"hints": [{"kind": "other", "text": "", "words": [1]}]},
    ],
)
def test_a_damaged_dictionary_is_an_invalid_request(damage):
    with pytest.raises(InvalidRequestError):
        Segmentation.from_dict(result_of(STACK).to_dict() | damage)


def test_a_result_of_an_earlier_version_keeps_its_only_hint():
    stored = result_of(STACK).to_dict() | {"hint": "a hint"}
    del stored["hints"]
    assert Segmentation.from_dict(stored).hints == (Hint("other", "a hint"),)


def test_a_hint_of_a_kind_that_only_a_later_version_knows_keeps_its_text():
    stored = result_of(STACK).to_dict() | {"hints": [{"kind": "weather", "text": "it rains", "words": []}]}
    assert Segmentation.from_dict(stored).hint == "it rains"


def test_a_file_that_is_not_json_is_an_invalid_request(tmp_path):
    (tmp_path / "picture.json").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidRequestError, match="not JSON"):
        Segmentation.load(tmp_path / "picture.json")


RESULTS = [result_of(STACK, source="a.png"), empty_result(prompt="dog"), result_of(STACK, prompt="고양이")]
LINES = "".join(json.dumps(one.to_dict() | {"request": "x"}, ensure_ascii=False) + "\n" for one in RESULTS)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([one.to_dict() for one in RESULTS]).encode(),
        LINES.encode(),
        LINES.removesuffix("\n").encode(),
        LINES.replace("\n", "\r\n\r\n").encode(),
        (LINES + LINES[:50]).encode(),  # cut off
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),  # what PowerShell's > writes
    ],
    ids=["array", "lines", "no newline at the end", "blank lines", "cut off", "byte order mark", "utf-16"],
)
def test_a_file_of_several_results_is_read(tmp_path, content):
    (tmp_path / "found.jsonl").write_bytes(content)
    assert Segmentation.load_all(tmp_path / "found.jsonl") == RESULTS
    with pytest.raises(InvalidRequestError, match=r"found\.jsonl holds 3 results: Segmentation\.load_all"):
        Segmentation.load(tmp_path / "found.jsonl")


@pytest.mark.parametrize("pack", [lambda one: one, lambda one: [one]])
def test_a_file_of_one_result_is_read_by_both(tmp_path, pack):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(pack(RESULTS[0].to_dict())) + "\n")
    assert Segmentation.load(path) == RESULTS[0]
    assert Segmentation.load_all(path) == RESULTS[:1]


def test_the_file_of_a_task_is_read(tmp_path):
    path = tmp_path / "task.json"
    path.write_bytes(instances_file.write([result_of(STACK), result_of(STACK, prompt="dog")], threshold=0.5))
    assert [(one.prompt, one.threshold, len(one)) for one in Segmentation.load_all(path)] == [
        ("cat", 0.5, 2),
        ("dog", 0.5, 2),
    ]


def test_a_file_without_a_result_has_none(tmp_path):
    (tmp_path / "found.jsonl").write_bytes(b"")
    assert Segmentation.load_all(tmp_path / "found.jsonl") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps(result_of(STACK).to_coco()), "COCO dataset"),
        (json.dumps(result_of(STACK).to_geojson()), "GeoJSON"),
        ('{"data": {"task_id": "x"}}', "Client.segmentations"),
        ('{"a": 1}', "no format"),
        ("7", "int"),
        ("[[1]]", "list"),
        ("{}\n{", "format"),
        (LINES.replace("\n", "\n{\n", 1), "line 2"),
        ("prompt,score\ncat,0.5\n", "not JSON"),
    ],
)
def test_a_file_of_something_else_says_what_it_is(tmp_path, content, says):
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(InvalidRequestError, match=r"found\.json") as error:
        Segmentation.load(path)
    assert says in str(error.value)


def test_a_list_in_memory_is_referred_to_the_right_function():
    with pytest.raises(InvalidRequestError, match=r"takes one result.*load_all"):
        Segmentation.from_dict([result_of(STACK).to_dict()])


# ---- pictures and looks ----


def test_crops_are_cut_to_the_mask_with_the_mask_in_alpha():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    result = result_of(STACK, image=image)
    for crop, instance, mask in zip(result.crops(), result, STACK, strict=True):
        x1, y1, x2, y2 = (int(side) for side in masks.box(instance.rle))
        pixels = np.array(crop)
        assert crop.mode == "RGBA"
        assert np.array_equal(pixels[..., :3], image[y1:y2, x1:x2])
        assert np.array_equal(pixels[..., 3], mask[y1:y2, x1:x2] * 255)


def test_an_empty_mask_still_has_a_crop():
    result = result_of(np.zeros((1, 4, 5)), image=np.zeros((4, 5, 3), np.uint8))
    (crop,) = result.crops()
    assert np.array(crop)[..., 3].max() == 0


def test_without_its_picture_a_result_asks_for_one():
    result = result_of(STACK)
    with pytest.raises(InvalidRequestError, match="pass image="):
        result.overlay()
    assert result.overlay(np.zeros((40, 60, 3), np.uint8)).size == (60, 40)
    with pytest.raises(InvalidRequestError, match=r"\(60, 40\) \(height, width\), but the result \(40, 60\)"):
        result.crops(np.zeros((60, 40, 3), np.uint8))


def test_repr_tells_what_was_found():
    assert repr(result_of(STACK, source="park.png")) == (
        "<Segmentation 'cat': 3 instances (0.90, 0.65, 0.40) in park.png 60×40, presence 0.98, embedded>"
    )


@pytest.mark.parametrize("image", [None, np.zeros((40, 60, 3), np.uint8)])
def test_in_a_notebook_it_shows_a_picture_and_escapes_what_the_user_typed(image):
    result = result_of(
        STACK, prompt="<script>", hints=(Hint("other", "a & b"), Hint("photograph", "c < d")), image=image
    )
    assert result._repr_png_().startswith(b"\x89PNG")
    shown = result._repr_html_()
    assert "data:image/png;base64," in shown
    assert "&lt;script&gt;" in shown
    assert "a &amp; b" in shown
    assert "c &lt; d" in shown
    assert "<script>" not in shown


def test_importing_it_brings_neither_pillow_nor_pandas_nor_supervision():
    code = (
        "import sys, s3seg.results.segmentation, s3seg.results.export;"
        "print({'PIL', 'pandas', 'supervision', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

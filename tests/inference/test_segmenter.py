"""The way a user goes: a picture and a word in, masks out, with the embedded checkpoint and real pictures."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import s3seg
from s3seg import images
from s3seg.errors import ImageDecodeError, InvalidRequestError, PromptError
from s3seg.results import export, masks
from tests.helpers.pictures import photograph

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
STREET = PICTURES / "street.png"


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


@pytest.fixture(scope="module")
def street(seg):
    return seg.encode(STREET)


def truth(picture: str, label: str) -> list[masks.RLE]:
    instances = json.loads((PICTURES / f"{picture}.json").read_text())["instances"]
    return [masks.from_coco(one["segmentation"]) for one in instances if one["label"] == label]


def test_it_finds_the_cars_of_a_street(seg):
    cars = seg.segment(STREET, "car")
    assert cars.prompt == "car"
    assert cars.size == (640, 800)
    assert cars.presence > 0.5
    assert cars.model.name == "s3seg-embedded"
    assert "does not know photographs" in cars.model.summary
    assert "does not know photographs" in cars._repr_html_()
    assert cars.source == str(STREET)
    best = masks.iou(list(cars.rles), truth("street", "car")).max(axis=0)
    assert (best > 0.7).all(), best


def test_several_prompts_give_what_each_alone_gives(seg, street):
    prompts = ["car", "house", "tree", "elephant"]
    together = seg.segment(street, prompts)
    assert [r.prompt for r in together] == prompts
    for prompt, result in zip(prompts, together, strict=True):
        alone = seg.segment(STREET, prompt)
        np.testing.assert_allclose(alone.scores, result.scores, atol=1e-4)
        assert len(alone) == len(result)
        if len(alone):
            assert np.diag(masks.iou(list(alone.rles), list(result.rles))).min() > 0.999


def test_the_threshold_of_the_checkpoint_is_the_default(seg, street):
    result = seg.segment(street, "car")
    assert result.threshold == seg.metadata.threshold
    assert (result.scores > seg.metadata.threshold).all()
    more = seg.segment(street, "car", threshold=0.01)
    assert len(more) > len(result)
    np.testing.assert_allclose(more.scores[: len(result)], result.scores, atol=1e-5)


def test_at_most_so_many_instances_are_the_best_ones(seg, street):
    every = seg.segment(street, "car", threshold=0.01)
    two = seg.segment(street, "car", threshold=0.01, max_instances=2)
    np.testing.assert_allclose(two.scores, every.scores[:2], atol=1e-5)


def test_a_word_it_does_not_know_gets_no_masks_and_a_hint(seg, street):
    result = seg.segment(street, "xylophone")
    assert len(result) == 0
    assert result.masks.shape == (0, 640, 800)
    assert "'xylophone'" in result.hint
    assert "s3seg models pull litetext (0.5 B parameters, no account needed)" in result.hint
    assert seg.segment(street, "cars").hint is None


@pytest.mark.parametrize("name", ["chelsea.png", "camera.png", "hubble_deep_field.jpg"])
def test_on_a_photograph_hits_and_misses_have_a_hint_that_names_the_remedy(seg, name):
    encoded = seg.encode(photograph(name))
    for result in (*seg.segment(encoded, ["cat", "xylophone"]), seg.segment(encoded, boxes=[(10, 10, 90, 90)])):
        assert [hint.kind for hint in result.hints if hint.kind == "photograph"] == ["photograph"]
        assert "looks like a photograph" in result.hint
        assert "s3seg models pull litetext (0.5 B parameters, no account needed)" in result.hint
        assert "looks like a photograph" in result._repr_html_()
    everything = seg.segment(encoded, "cat", threshold=0.0)
    assert len(everything)
    assert "looks like a photograph" in everything.hint


def test_a_checkpoint_that_does_not_say_that_it_knows_drawings_only_gives_no_hint_on_a_photograph(seg, monkeypatch):
    monkeypatch.setattr(seg.network, "metadata", dataclasses.replace(seg.metadata, drawings_only=False))
    assert seg.segment(photograph("chelsea.png"), "cat").hint is None


def test_every_kind_of_source_gives_the_same_result(seg):
    picture = Image.open(STREET).convert("RGB")
    expected = seg.segment(STREET, "car")
    for source in (
        str(STREET),
        STREET.read_bytes(),
        io.BytesIO(STREET.read_bytes()),
        picture,
        np.asarray(picture),
    ):
        result = seg.segment(source, "car")
        assert result.rles == expected.rles
        np.testing.assert_array_equal(result.scores, expected.scores)


def test_masks_lie_on_the_pixels_of_the_original_picture(seg):
    small = Image.open(STREET).convert("RGB")
    large = small.resize((small.width * 3, small.height * 3), Image.Resampling.BICUBIC)
    a, b = seg.segment(small, "car"), seg.segment(large, "car")
    assert b.size == (1920, 2400)
    shrunk = [masks.encode(instance.mask[1::3, 1::3]) for instance in b]
    assert np.diag(masks.iou(list(a.rles), shrunk)).min() > 0.9
    np.testing.assert_allclose(b.boxes / 3, a.boxes, atol=8)


def test_many_pictures_come_in_order_and_like_single_ones(seg):
    paths = [PICTURES / f"{name}.png" for name in ("street", "shapes", "kitchen_table")] * 2
    found = list(seg.segment_many(paths, "tree", batch_size=4))
    assert [path for path, _ in found] == paths
    for path, result in found[:3]:
        alone = seg.segment(path, "tree")
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-4)
        assert result.source == str(path)
    both = [results for _, results in seg.segment_many(paths[:1], ["car", "tree"])]
    assert [r.prompt for r in both[0]] == ["car", "tree"]


def test_one_bad_picture_of_many_stops_the_rest_only_if_nobody_listens(seg, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    errors = []
    paths = [STREET, bad, STREET]
    found = list(seg.segment_many(paths, "car", on_error=lambda source, err: errors.append((source, err))))
    assert [path for path, _ in found] == [STREET, STREET]
    assert [source for source, _ in errors] == [bad]
    assert isinstance(errors[0][1], ImageDecodeError)
    with pytest.raises(ImageDecodeError, match=r"bad\.png"):
        list(seg.segment_many(paths, "car"))


def test_pictures_are_read_only_a_little_ahead(seg):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield STREET

    stream = seg.segment_many(endless(), "car", batch_size=2)
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(taken) < 20
    assert not [t for t in threading.enumerate() if t.name.startswith("s3seg-decode")]


@pytest.mark.parametrize(
    "prompt",
    ["", "  ", "\u200b", [], ["car", ""], None, 7, ["car", 3], b"car", [b"car"], ["car", None], float("nan"), "a\x00b"],
)
def test_a_prompt_that_says_nothing_or_is_not_text_is_refused(seg, street, prompt):
    with pytest.raises(PromptError):
        seg.segment(street, prompt)
    with pytest.raises(PromptError):
        seg.segment_many([STREET], prompt)


@pytest.mark.parametrize("typed", ["car\n", " car ", "\u201ccar\u201d", "\ufeffcar", "c\u200bar", "car\u00a0", "car. "])
def test_a_prompt_means_the_same_however_it_was_typed(seg, street, typed):
    result, expected = seg.segment(street, typed), seg.segment(street, "car")
    assert result.prompt == "car"
    assert result.rles == expected.rles
    assert result.hint is None
    assert seg.hint(typed) is None


def test_a_list_in_one_prompt_gets_a_hint(seg, street):
    hint = seg.segment(street, "car, tree").hint
    assert 'one prompt each: ["car", "tree"]' in hint
    both = seg.segment(street, "car, xylophone").hint
    assert "one prompt each" in both
    assert "does not know 'xylophone'" in both


def test_prompts_given_twice_have_a_result_each_and_are_predicted_once(seg, street, monkeypatch):
    asked = []
    predict = seg.network.predict_queries

    def counted(pairs, **options):
        asked.append(len(pairs))
        return predict(pairs, **options)

    monkeypatch.setattr(seg.network, "predict_queries", counted)
    results = seg.segment(street, ["car", "tree", "car", "car\n"])
    assert [one.prompt for one in results] == ["car", "tree", "car", "car"]
    assert results[0] == results[2] == results[3]
    assert asked == [2]


def test_a_prompt_that_is_too_long_says_how_long_it_is(seg, street):
    with pytest.raises(PromptError, match=r"\d+ tokens, but this model accepts at most 30"):
        seg.segment(street, "extraordinarily " * 20)


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.float16(0.5), np.array(0.5), Decimal("0.5")])
def test_a_threshold_may_be_any_kind_of_number(seg, street, number):
    assert type(seg.segment(street, "car", threshold=number).threshold) is float
    assert seg.segment(street, "car", threshold=number).rles == seg.segment(street, "car", threshold=0.5).rles


@pytest.mark.parametrize(
    "threshold", [-0.1, 1.1, float("nan"), float("inf"), np.float32("nan"), "high", "0.5", True, []]
)
def test_a_threshold_outside_0_to_1_is_refused(seg, street, threshold):
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        seg.segment(street, "car", threshold=threshold)


@pytest.mark.parametrize("number", [np.int64(2), np.uint8(2), np.array(2)])
def test_a_number_of_instances_may_be_any_kind_of_whole_number(seg, street, number):
    assert len(seg.segment(street, "car", threshold=0.01, max_instances=number)) == 2
    assert len(list(seg.segment_many([STREET] * 3, "car", batch_size=number))) == 3


@pytest.mark.parametrize("number", [0, -1, 2.5, "2", True, float("nan"), np.float64(2)])
def test_a_number_of_instances_or_pictures_is_a_whole_one(seg, street, number):
    with pytest.raises(InvalidRequestError, match="max_instances must be a whole number"):
        seg.segment(street, "car", max_instances=number)
    with pytest.raises(InvalidRequestError, match="batch_size must be a whole number"):
        seg.segment_many([STREET], "car", batch_size=number)


@pytest.mark.parametrize(
    "source",
    [
        str(STREET),
        STREET,
        STREET.read_bytes(),
        bytearray(b"x"),
        io.BytesIO(b"x"),
        Image.new("RGB", (9, 9)),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((9, 9), np.uint8),
    ],
    ids=["str", "path", "bytes", "bytearray", "file", "PIL", "array", "grey array"],
)
def test_one_picture_is_not_taken_for_many(seg, source):
    with pytest.raises(
        InvalidRequestError, match=r"segment_many takes a list of pictures.*for one picture use segment"
    ):
        seg.segment_many(source, "car")


def test_a_prompt_of_numpy_is_a_plain_one(seg, street):
    (result,) = seg.segment(street, np.array(["car"]))
    assert type(result.prompt) is str


def test_a_result_says_where_the_time_went(seg):
    assert list(seg.segment(STREET, "car").timings) == ["decode", "image", "prompt", "masks"]
    ((_, result),) = seg.segment_many([STREET], "car")
    assert list(result.timings) == ["decode", "image", "prompt", "masks"]
    assert all(ms > 0 for ms in result.timings.values())


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3]], ["1234x"], [[1, 2, 3, None]], [[1, 2, float("inf"), 4]]])
def test_a_box_that_is_none_is_told_how_boxes_are_given(seg, street, boxes, monkeypatch):
    monkeypatch.setattr(seg, "metadata", dataclasses.replace(seg.metadata, box_prompts=True))
    with pytest.raises(InvalidRequestError, match=r"a box is four numbers.*boxes=\[\.\.\.\] a list of them"):
        seg.segment(street, boxes=boxes)


def test_box_prompts_are_refused_where_the_checkpoint_has_not_learnt_them(seg, street):
    if seg.metadata.box_prompts:
        assert len(seg.segment(street, boxes=[[30, 390, 245, 505]], threshold=0.01))
    else:
        with pytest.raises(InvalidRequestError, match="was not trained on boxes"):
            seg.segment(street, boxes=[[30, 390, 245, 505]])


def test_an_embedding_belongs_to_the_segmenter_that_made_it(seg, street):
    other = s3seg.Segmenter("embedded", device="cpu")
    with pytest.raises(InvalidRequestError, match="another Segmenter"):
        other.segment(street, "car")


def test_a_segmenter_may_be_shared_between_threads(seg):
    expected = seg.segment(STREET, ["car", "tree"])
    results: list[list[s3seg.Segmentation]] = []
    threads = [threading.Thread(target=lambda: results.append(seg.segment(STREET, ["car", "tree"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert [r.rles for r in result] == [r.rles for r in expected]


def test_pictures_without_a_name_are_kept_apart_in_exports(seg):
    street = np.asarray(Image.open(STREET).convert("RGB"))
    encoded = io.BytesIO()
    Image.fromarray(street[::-1]).save(encoded, format="PNG")
    pictures = [street, street[:, ::-1], np.zeros_like(street), Image.fromarray(street // 2), encoded.getvalue()]
    results = [seg.segment(picture, "car") for picture in pictures]
    results += [result for _, result in seg.segment_many([np.zeros_like(street)] * 2, "car")]
    dataset = export.coco(results)
    assert len({image["file_name"] for image in dataset["images"]}) == len(dataset["images"]) == 7
    assert [a["image_id"] for a in dataset["annotations"]] == [
        k for k, result in enumerate(results, start=1) for _ in result
    ]
    stored = [s3seg.Segmentation.from_dict(json.loads(json.dumps(result.to_dict()))) for result in results]
    assert export.coco(stored) == dataset


def test_several_prompts_on_one_picture_are_one_picture_in_exports(seg):
    street = np.asarray(Image.open(STREET).convert("RGB"))
    embedding = seg.encode(street)
    results = [
        *seg.segment(embedding, ["car", "tree", "car"]),
        seg.segment(embedding, "house"),
        seg.segment(street, "sun"),
    ]
    assert len(export.coco(results)["images"]) == 1
    named = [seg.segment(STREET, "car"), seg.segment(str(STREET), "car"), seg.segment(STREET, "tree")]
    assert len(export.coco(named)["images"]) == 1


# ---- processes ----


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_pickling_or_copying_a_segmenter_says_what_to_do(seg, street, copied):
    for one in (seg, seg.segment, seg.network, street, [street]):
        if copied is copy.copy and (one == [street] or one == seg.segment):
            continue  # a copy of these has the same segmenter
        with pytest.raises(TypeError, match="make a Segmenter in each"):
            copied(one)


FORKED = """
import os, sys, s3seg
from s3seg.errors import InferenceError
seg = s3seg.Segmenter("embedded", device="cpu")
street = seg.encode(sys.argv[1])
found = len(seg.segment(street, "car"))
stream = seg.segment_many([sys.argv[1]] * 9, "car")
next(stream)
if os.fork() == 0:
    for use in (
        lambda: seg.segment(sys.argv[1], "car"),
        lambda: seg.segment(street, "car"),
        lambda: seg.encode(sys.argv[1]),
        lambda: seg.segment_many([sys.argv[1]], "car"),
        lambda: next(stream),
    ):
        try:
            use()
            print("no error", flush=True)
        except InferenceError as err:
            print(err, flush=True)
    os._exit(0)
os.wait()
print(len(seg.segment(street, "car")) == found)
stream.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_to_make_its_own_segmenter_and_never_waits():
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(STREET)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *told, parent = done.stdout.splitlines()
    assert len(told) == 5, done
    for line in told:
        assert "forked" in line
        assert "Make a Segmenter in the child process" in line
        assert "get_context('spawn')" in line
    assert parent == "True"


def test_a_device_or_precision_that_is_not_here_is_named(seg):
    with pytest.raises(InvalidRequestError, match="'quantum'"):
        s3seg.Segmenter("embedded", device="quantum")
    with pytest.raises(InvalidRequestError, match="'int3'"):
        s3seg.Segmenter("embedded", dtype="int3")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_finds_the_same(seg, dtype):
    half = s3seg.Segmenter("embedded", device="cpu", dtype=dtype)
    expected, found = seg.segment(STREET, "car"), half.segment(STREET, "car")
    assert found.model.dtype == dtype
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)
    assert masks.iou(list(found.rles), list(expected.rles)).max(axis=1).min() > 0.9


def test_another_input_size_is_a_multiple_of_the_patch(seg):
    larger = s3seg.Segmenter("embedded", device="cpu", image_size=256)
    assert larger.image_size == 256
    assert larger.segment(STREET, "car").size == (640, 800)
    for size in (250, 0, -16):
        with pytest.raises(InvalidRequestError, match=f"multiple of the patch size 16, not {size}"):
            s3seg.Segmenter("embedded", device="cpu", image_size=size)


def test_the_picture_may_be_loaded_beforehand(seg):
    loaded = images.load(STREET)
    result = seg.segment(loaded, "car")
    assert result.image is loaded.pixels
    assert result.overlay().size == (800, 640)


def test_a_picture_that_was_loaded_reduced_gives_masks_of_the_size_it_was_loaded_at(seg):
    buffer = io.BytesIO()
    Image.open(STREET).convert("RGB").save(buffer, format="JPEG", quality=95)
    loaded = images.load(buffer.getvalue(), reduce_to=seg.image_size)
    assert loaded.size != loaded.full_size
    assert seg.segment(loaded, "car").size == loaded.size

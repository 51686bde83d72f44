"""Thresholds chosen on labelled pictures, beside a count by hand; and thresholds of their own for prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3seg
from s3seg.errors import InvalidRequestError, MaskError
from s3seg.inference.calibration import Calibration, Curve, calibrate, measure
from s3seg.inference.calibration_plot import plot
from s3seg.results import masks
from tests.results.small_results import empty_result, result_of

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
CELLS = np.eye(12, dtype=bool).reshape(12, 1, 12)  # twelve masks of one pixel each


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


def labelled(name: str, label: str) -> list[masks.RLE]:
    instances = json.loads((PICTURES / f"{name}.json").read_text())["instances"]
    return [masks.from_coco(one["segmentation"]) for one in instances if one["label"] == label]


def result_with(scores, cells):
    if not len(scores):
        return empty_result((1, 12))
    return result_of(CELLS[list(cells)], scores=scores, threshold=0.1)


@given(
    st.lists(st.lists(st.tuples(st.integers(11, 99), st.integers(0, 11)), max_size=8, unique_by=lambda one: one[1])),
    st.integers(1, 12),
    st.integers(10, 99),
)
def test_a_curve_is_what_counting_at_each_threshold_gives(pictures, truth, percent):
    pairs, hits, kept = [], 0, 0
    for picture in pictures:
        scores, cells = [one[0] / 100 for one in picture], [one[1] for one in picture]
        pairs.append((result_with(scores, cells), [masks.encode(mask) for mask in CELLS[:truth]]))
        above = [cell for score, cell in zip(scores, cells, strict=True) if np.float32(score) > percent / 100]
        kept, hits = kept + len(above), hits + sum(cell < truth for cell in above)
    pairs.append((result_with([], []), [masks.encode(CELLS[0])]))
    curve = measure(pairs)
    total = truth * len(pictures) + 1
    assert (curve.labelled, curve.pictures) == (total, len(pictures) + 1)
    f1, precision, recall = curve.at(percent / 100)
    assert precision == pytest.approx(hits / kept if kept else 1)
    assert recall == pytest.approx(hits / total)
    assert f1 == pytest.approx(2 * hits / (kept + total))
    assert curve.at(curve.best)[0] == pytest.approx(max(curve.f1))


def test_the_threshold_lies_between_what_is_right_and_what_is_wrong():
    curve = measure([(result_with([0.9, 0.7, 0.3], [0, 1, 11]), [masks.encode(mask) for mask in CELLS[:2]])])
    assert curve.best == pytest.approx(0.5, abs=1e-3)
    assert curve.at(curve.best) == (1, 1, 1)


def test_a_thing_is_found_once():
    twice = result_of(CELLS[[0, 0]], scores=[0.9, 0.8])
    curve = measure([(twice, [masks.encode(CELLS[0])])])
    assert curve.at(0.5) == pytest.approx((2 / 3, 0.5, 1))


def test_pictures_are_calibrated_saved_and_used(seg, tmp_path):
    pairs = [(PICTURES / f"{name}.png", {"tree": labelled(name, "tree"), "car": labelled(name, "car")})
             for name in ("park", "street")]  # fmt: skip
    done = []
    calibration = calibrate(seg, pairs, on_picture=lambda: done.append(1))
    assert len(done) == 2
    assert list(calibration.curves) == ["tree", "car"]
    assert calibration.curves["car"].at(calibration.threshold("car"))[0] > 0.8
    calibration.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert again == calibration

    calibrated = s3seg.Segmenter("embedded", device="cpu", calibration=tmp_path / "calibration.json")
    trees, cars = calibrated.segment(PICTURES / "street.png", ["tree", "car"], threshold="calibrated")
    assert (trees.threshold, cars.threshold) == (again.threshold("tree"), again.threshold("car"))
    expected = seg.segment(PICTURES / "street.png", "car", threshold=again.threshold("car"))
    assert cars.rles == expected.rles
    with pytest.raises(InvalidRequestError, match="'house' was not calibrated"):
        calibrated.segment(PICTURES / "street.png", "house", threshold="calibrated")
    with pytest.raises(InvalidRequestError, match="s3seg calibrate"):
        seg.segment(PICTURES / "street.png", "car", threshold="calibrated")


def test_prompts_have_thresholds_of_their_own(seg):
    street = seg.encode(PICTURES / "street.png")
    cars, houses, trees = seg.segment(street, ["car", "house", "tree"], threshold={"car": 0.9, " house": 0.2})
    assert [one.threshold for one in (cars, houses, trees)] == [0.9, 0.2, seg.metadata.threshold]
    for one in (cars, houses, trees):
        assert one.rles == seg.segment(street, one.prompt, threshold=one.threshold).rles
    ((_, many),) = seg.segment_many([PICTURES / "street.png"], ["car"], threshold={"car": 0.9})
    assert many[0].rles == cars.rles
    for wrong in ({"bus": 0.5}, {"car": 2}, {"car": "high"}, "high"):
        with pytest.raises(InvalidRequestError):
            seg.segment(street, ["car"], threshold=wrong)


def test_what_cannot_be_calibrated_says_why(seg):
    street = PICTURES / "street.png"
    with pytest.raises(InvalidRequestError, match="nothing is labelled for 'car'"):
        calibrate(seg, [(street, {"car": []})])
    with pytest.raises(InvalidRequestError, match="no labelled picture"):
        calibrate(seg, [])
    with pytest.raises(MaskError, match=r"street\.png is \(640, 800\)"):
        calibrate(seg, [(street, {"car": [masks.encode(CELLS[0])]})])
    right = masks.encode(np.ones((640, 800), bool))
    with pytest.raises(MaskError, match=rf"and a labelled mask \({CELLS[0].shape[0]}, {CELLS[0].shape[1]}\)"):
        calibrate(seg, [(street, {"car": [right, masks.encode(CELLS[0])]})])


def test_a_calibration_of_another_checkpoint_is_refused(tmp_path):
    curve = Curve((0.1,), (1.0,), (1.0,), 1, 1)
    Calibration("sam3", "1", {"car": curve}).save(tmp_path / "other.json")
    with pytest.raises(InvalidRequestError, match="calibration is of sam3 1"):
        s3seg.Segmenter("embedded", device="cpu", calibration=tmp_path / "other.json")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        "x",
        '{"format": "other"}',
        '{"format": "s3seg.calibration/1", "model": "a", "version": "1", "curves": {"car": {}}}',
        '{"format": "s3seg.calibration/1", "model": "a", "version": "1", "curves": {"car": {"thresholds": [0.5, 0.1], '
        '"precision": [1, 1], "recall": [1, 1], "labelled": 1, "pictures": 1}}}',
    ],
)
def test_another_file_is_not_taken_for_a_calibration(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InvalidRequestError, match=r"x\.json"):
        Calibration.load(tmp_path / "x.json")


def test_the_plot_has_a_panel_for_each_prompt():
    curve = Curve((0.1, 0.4), (0.5, 1.0), (1.0, 0.8), 5, 3)
    one, four = (plot(Calibration("a", "1", {f"p{k}": curve for k in range(n)})) for n in (1, 4))
    assert four.width > 2 * one.width
    assert four.height > 1.5 * one.height
    assert len(one.getcolors(maxcolors=10**6)) > 50

"""Clicks in a program: points, boxes and masks to corrected masks.

The click head has random weights, except in the last test.
"""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import s3seg
from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.sam3.click_prompts import BOX_END, BOX_START, NEGATIVE, POSITIVE, ClickPrompts
from tests.helpers.clickable import write_checkpoint_without_clicks, write_clickable_checkpoint

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
STREET = PICTURES / "street.png"
HEIGHT, WIDTH = 640, 800


@pytest.fixture(scope="module")
def seg(tmp_path_factory) -> s3seg.Segmenter:
    return s3seg.Segmenter(write_clickable_checkpoint(tmp_path_factory.mktemp("clickable") / "c"), device="cpu")


@pytest.fixture(scope="module")
def headless(tmp_path_factory) -> s3seg.Segmenter:
    return s3seg.Segmenter(write_checkpoint_without_clicks(tmp_path_factory.mktemp("headless") / "c"), device="cpu")


@pytest.fixture(scope="module")
def street(seg):
    return seg.encode(STREET)


def predicted(seg, street, points, labels, mask_logits=None):
    """What the head itself predicts for points of the picture."""
    head = seg.predictor.model.clicks
    xy = torch.tensor([points]) / torch.tensor([WIDTH, HEIGHT])
    prompts = ClickPrompts(xy, torch.tensor([labels]), torch.ones(1, len(points), dtype=torch.bool), mask_logits)
    with torch.inference_mode():
        return head, head(head.features(street.encoded.features.patches), prompts)


def full_size(logits):
    """The mask of logits (h, w), as an array."""
    return (F.interpolate(logits[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0] > 0).numpy()


def differing(found, expected) -> float:
    return float((found != expected).mean())


def test_a_network_says_what_it_can_be_asked_by(seg, headless):
    assert seg.network.prompt_kinds == ("words", "boxes", "clicks")
    assert s3seg.Segmenter("embedded", device="cpu").network.prompt_kinds == ("words", "boxes", "clicks")
    assert headless.network.prompt_kinds == ("words", "boxes")


def test_one_click_gives_the_alternative_with_the_highest_predicted_iou(seg, street):
    found = seg.click(street, [(400.0, 300.0)])
    _, expected = predicted(seg, street, [(400.0, 300.0)], [POSITIVE])
    best = int(expected.ious[0, 1:].argmax()) + 1
    assert len(found) == 1
    assert found.prompt == ""
    assert found.scores[0] == pytest.approx(float(expected.ious[0, best]), abs=1e-5)
    assert found.presence == pytest.approx(float(expected.object_logits.sigmoid()), abs=1e-5)
    assert differing(found.masks[0], full_size(expected.mask_logits[0, best])) < 1e-4
    assert found[0].box == masks.box(found.rles[0])


def test_all_alternatives_come_with_their_ious_the_best_first(seg, street):
    found = seg.click(street, [(400.0, 300.0)], alternatives=True)
    _, expected = predicted(seg, street, [(400.0, 300.0)], [POSITIVE])
    assert len(found) == 3
    np.testing.assert_allclose(found.scores, expected.ious[0, 1:].sort(descending=True)[0], atol=1e-5)
    for rank, index in enumerate(expected.ious[0, 1:].argsort(descending=True).tolist()):
        assert differing(found.masks[rank], full_size(expected.mask_logits[0, index + 1])) < 1e-4


def test_several_points_and_a_box_give_the_mask_for_prompts_without_doubt(seg, street):
    found = seg.click(street, [(400, 300), (10, 20)], [1, 0], box=(300, 200, 500, 400))
    head, expected = predicted(
        seg,
        street,
        [(400.0, 300.0), (10.0, 20.0), (300.0, 200.0), (500.0, 400.0)],
        [POSITIVE, NEGATIVE, BOX_START, BOX_END],
    )
    logits, iou = head.decoder.single(expected)
    assert found.scores[0] == pytest.approx(float(iou), abs=1e-5)
    assert differing(found.masks[0], full_size(logits[0])) < 1e-4


def test_objects_that_are_clicked_together_are_as_if_alone_and_stay_in_order(seg, street):
    objects = [
        s3seg.Clicks([(400, 300)]),
        s3seg.Clicks([(40, 30), (90, 100), (700, 500)], [1, 0, 1]),
        s3seg.Clicks(box=(10, 10, 300, 200)),
    ]
    together = seg.click_many(street, objects)
    for one, clicks in zip(together, objects, strict=True):
        alone = seg.click(street, clicks.points, [int(label) for label in clicks.labels], box=clicks.box)
        assert one.scores[0] == pytest.approx(alone.scores[0], abs=1e-5)
        assert differing(one.masks[0], alone.masks[0]) < 1e-4
    assert seg.click_many(street, []) == []


def test_text_and_clicks_share_one_encoding(seg, street, monkeypatch):
    trunk = seg.predictor.model.vision.trunk
    calls = []
    monkeypatch.setattr(trunk, "forward", lambda pixels, forward=trunk.forward: calls.append(1) or forward(pixels))
    embedding = seg.encode(STREET)
    seg.segment(embedding, "car")
    seg.click(embedding, [(400, 300)])
    seg.segment(embedding, "car").refine(0, [(400, 300)])
    assert len(calls) == 1


def test_a_click_can_correct_an_instance_that_text_found(seg, street):
    cars = seg.segment(street, "car")
    x, y = 400.0, 300.0
    refined = cars.refine(1, [(x, y)], [0])

    covered = torch.from_numpy(cars.masks[1].astype(np.float32))[None, None]
    side = 4 * street.encoded.features.grid[0]
    earlier = F.interpolate(covered, (side, side), mode="bilinear", antialias=True)[0] * 20 - 10
    head, expected = predicted(seg, street, [(x, y)], [NEGATIVE], earlier)
    logits, _ = head.decoder.single(expected)
    assert differing(refined.masks[1], full_size(logits[0])) < 1e-3
    assert refined[1].box == masks.box(refined.rles[1])
    np.testing.assert_array_equal(refined.scores, cars.scores)
    others = [k for k in range(len(cars)) if k != 1]
    assert all(refined.rles[k] == cars.rles[k] for k in others)
    np.testing.assert_array_equal(refined.boxes[others], cars.boxes[others])
    assert refined.prompt == "car"


def test_a_mask_may_be_an_array_an_rle_or_an_instance(seg, street):
    car = seg.segment(street, "car")[0]
    first = seg.click(street, [(400, 300)], mask=car)
    for mask in (car.rle, car.mask):
        assert seg.click(street, [(400, 300)], mask=mask).rles == first.rles
    assert first.rles != seg.click(street, [(400, 300)]).rles


def test_a_result_whose_encoding_is_gone_is_encoded_again_once(seg, monkeypatch):
    result = seg.segment(STREET, "car")
    gc.collect()
    calls = []
    encode = seg.network.encode
    monkeypatch.setattr(seg.network, "encode", lambda batch: calls.append(1) or encode(batch))
    first = result.refine(0, [(400, 300)])
    second = result.refine(-1, [(40, 30)])
    assert len(calls) == 1
    assert first.rles[0] != result.rles[0]
    assert second.rles[-1] != result.rles[-1]


def test_encodings_of_results_are_not_kept_alive(seg):
    import weakref

    embedding = seg.encode(STREET)
    kept = weakref.ref(embedding.encoded.features)
    result = seg.segment(embedding, "car")
    seg.click(embedding, [(1, 1)])
    del embedding
    gc.collect()
    assert kept() is None
    assert len(result)


def test_a_saved_or_pickled_result_says_what_to_do_instead_of_refining(seg, street, tmp_path):
    result = seg.segment(street, "car")
    loaded = s3seg.Segmentation.load(result.save(tmp_path / "cars.json"))
    for copy in (loaded, pickle.loads(pickle.dumps(result))):
        assert copy == result
        with pytest.raises(InvalidRequestError, match=r"mask=result\[k\]\.rle"):
            copy.refine(0, [(400, 300)])


def test_an_instance_that_is_not_there_cannot_be_refined(seg, street):
    result = seg.segment(street, "car")
    with pytest.raises(IndexError, match="no instance 99"):
        result.refine(99, [(400, 300)])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"points": [(900, 300)]}, "900,300 is not inside the picture of 800 x 640"),
        ({"points": [(-1, 300)]}, "not inside"),
        ({"points": []}, "neither a point nor a box"),
        ({"points": [(1, 2, 3)]}, "two numbers"),
        ({"points": [(float("nan"), 2)]}, "two numbers"),
        ({"points": [(1, 2)], "labels": [2]}, "a label is 1"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "1 points, 2 labels"),
        ({"points": [(1, 2)] * 65}, "at most 64 points"),
        ({"box": (5, 5, 5, 9)}, "x1 < x2"),
        ({"box": (900, 5, 950, 9)}, "no part of the box"),
        ({"points": [(1, 2)], "mask": np.ones((3, 4), bool)}, "of the picture's size"),
        ({"points": [(1, 2)], "mask": np.ones((640, 800))}, "bools"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(seg, street, arguments, says):
    with pytest.raises(InvalidRequestError, match=says):
        seg.click(street, **arguments)


def test_a_checkpoint_without_the_head_says_so_and_what_to_use(headless):
    with pytest.raises(InvalidRequestError, match=r"headless checkpoint has no head for clicks.*Segmenter\('sam3'\)"):
        headless.click(STREET, [(400, 300)])
    with pytest.raises(InvalidRequestError, match="has no head for clicks"):
        headless.segment(STREET, "car").refine(0, [(400, 300)])


def deepest(wrong: np.ndarray) -> tuple[float, float]:
    """The point of a region that is farthest from its edge."""
    distance = cv2.distanceTransform(np.pad(wrong, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), wrong.shape)
    return float(x), float(y)


@pytest.mark.parametrize("name", ["street", "shapes"])
def test_the_embedded_checkpoint_has_learnt_clicks_and_corrections_improve_its_masks(name):
    seg = s3seg.Segmenter("embedded", device="cpu")
    picture = seg.encode(PICTURES / f"{name}.png")
    drawn = json.loads((PICTURES / f"{name}.json").read_text(encoding="utf-8"))["instances"]
    ious = []
    for each in drawn:
        truth = masks.decode(masks.from_coco(each["segmentation"]))
        found, points, labels, earlier = np.zeros_like(truth), [], [], None
        for _ in range(3):
            missing, surplus = truth & ~found, found & ~truth
            corrected = missing if missing.sum() >= surplus.sum() else surplus
            points.append(deepest(corrected))
            labels.append(int(corrected is missing))
            clicked = seg.click(picture, points, labels, mask=earlier)[0]  # as `Segmentation.refine` does
            found, earlier = clicked.mask, clicked.rle
            ious.append((found & truth).sum() / (found | truth).sum())
    one, _, three = np.array(ious).reshape(-1, 3).mean(0)
    assert one > 0.6
    assert three > max(one - 0.01, 0.7)  # on plain shapes one click leaves little to correct

"""Results to supervision and back, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv

from s3seg.errors import InvalidRequestError
from s3seg.inference.segmenter import Segmenter
from s3seg.results import export
from s3seg.results.segmentation import Segmentation
from tests.helpers.inference_system import PICTURES


def test_results_survive_the_way_to_supervision_and_back():
    results = Segmenter("embedded").segment(PICTURES / "park.png", ["tree", "cloud"])
    back = Segmentation.from_supervision(export.supervision(results), model=results[0].model)
    assert [one.prompt for one in back] == ["tree", "cloud"]
    for one, other in zip(back, results, strict=True):
        assert (one.rles, one.size, one.model) == (other.rles, other.size, other.model)
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.scores, other.scores)


def test_detections_survive_the_way_to_results_and_back():
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:5, 3:9] = masks[1, 10:19, 0:4] = masks[2, 0:1, 0:30] = True
    detections = sv.Detections(
        xyxy=np.array([[3, 2, 9, 5], [0, 10, 4, 19], [0, 0, 30, 1]], np.float32),
        mask=masks,
        confidence=np.array([0.25, 0.5, 0.75], np.float32),
        class_id=np.array([0, 1, 0]),
        data={"class_name": np.array(["a", "b", "a"])},
    )
    back = export.supervision(Segmentation.from_supervision(detections))
    order = [2, 0, 1]  # by class, then by score
    assert np.array_equal(back.mask, masks[order])
    assert np.array_equal(back.xyxy, detections.xyxy[order])
    assert np.array_equal(back.confidence, detections.confidence[order])
    assert back.class_id.tolist() == [0, 0, 1]
    assert back.data["class_name"].tolist() == ["a", "a", "b"]


def test_detections_without_names_and_scores_get_numbers_and_one():
    mask = np.ones((2, 4, 4), bool)
    boxes = np.array([[0, 0, 4, 4]] * 2, np.float32)
    numbered = Segmentation.from_supervision(sv.Detections(xyxy=boxes, mask=mask, class_id=np.array([7, 3])))
    plain = Segmentation.from_supervision(sv.Detections(xyxy=boxes, mask=mask))
    assert [(one.prompt, one.scores.tolist()) for one in numbered] == [("7", [1.0]), ("3", [1.0])]
    assert [(one.prompt, len(one)) for one in plain] == [("object", 2)]


def test_no_detections_are_no_results_and_boxes_alone_an_error():
    assert Segmentation.from_supervision(sv.Detections.empty()) == []
    with pytest.raises(InvalidRequestError, match="no masks"):
        Segmentation.from_supervision(sv.Detections(xyxy=np.array([[0, 0, 4, 4]], np.float32)))

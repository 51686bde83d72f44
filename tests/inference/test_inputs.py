"""What `Segmenter` takes beside files: names, BGR, frames of a video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import s3seg
from s3seg.errors import InvalidRequestError
from s3seg.images import load

STREET = Path(__file__).parents[2] / "examples" / "pictures" / "street.png"


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


def test_named_arrays_keep_their_names(seg):
    pixels = load(STREET).pixels
    named = [("left", pixels[:, :400]), ("right", pixels[:, 400:])]
    assert [result.source for _, result in seg.segment_many(named, "car")] == ["left", "right"]
    assert seg.segment(("whole", pixels), "car").source == "whole"
    with pytest.raises(InvalidRequestError, match="takes a list"):
        seg.segment_many(("whole", pixels), "car")


def test_bgr_arrays_give_the_results_of_their_file(seg):
    array = cv2.imread(str(STREET))
    expected = seg.segment(STREET, "car")
    for result in (seg.segment(array, "car", bgr=True), *dict(enumerate(
        one for _, one in seg.segment_many([array], "car", bgr=True))).values()):  # fmt: skip
        assert result.rles == expected.rles
        assert "channel_order" not in {hint.kind for hint in result.hints}


def test_an_array_that_looks_exchanged_has_a_hint_and_a_file_has_none(seg):
    array = cv2.imread(str(STREET))
    result = seg.segment(array, "car")
    assert [hint.kind for hint in result.hints] == ["channel_order"]
    assert "bgr=True" in result.hint
    assert s3seg.Segmentation.from_dict(result.to_dict()) == result
    assert not seg.segment(np.ascontiguousarray(array[..., ::-1]), "car").hints
    assert not seg.segment(STREET, "car").hints

"""The file of instances: what is written is read back, cut to any threshold as the network would cut."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.errors import InvalidRequestError, S3segError
from s3seg.results import instances_file
from s3seg.results.segmentation import cut
from tests.results.small_results import any_result, discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))


def scored(*scores: float):
    return result_of(STACK[: len(scores)], scores=np.float32(scores))


@given(st.lists(any_result(), max_size=3), st.floats(0, 1))
def test_what_is_written_is_read_back_above_the_threshold(results, threshold):
    back = instances_file.read(instances_file.write(results, threshold=threshold))
    assert back == [cut(result, threshold) for result in results]
    assert all(result.threshold == threshold for result in back)


def test_the_file_names_its_format_and_keeps_every_instance():
    stored = json.loads(instances_file.write([scored(0.9, 0.2)], threshold=0.5))
    assert (stored["format"], stored["threshold"]) == ("s3seg.instances/1", 0.5)
    assert stored["results"][0]["format"] == "s3seg.segmentation/1"
    assert len(stored["results"][0]["instances"]) == 2


def test_a_reader_may_choose_a_threshold_and_a_number():
    content = instances_file.write([scored(0.9, 0.4, 0.2)], threshold=0.5)
    assert [len(r) for r in instances_file.read(content)] == [1]
    assert [len(r) for r in instances_file.read(content, threshold=0.1)] == [3]
    (best,) = instances_file.read(content, threshold=0.1, max_instances=2)
    assert best.scores.tolist() == np.float32([0.9, 0.4]).tolist()
    assert best.threshold == 0.1


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_a_score_that_is_the_threshold_in_float32_is_left_out(threshold):
    at = np.float32(threshold)
    above = np.nextafter(at, np.float32(1))
    below = np.nextafter(at, np.float32(0))
    content = instances_file.write([scored(above, at, below)], threshold=threshold)
    (result,) = instances_file.read(content)
    assert result.scores.tolist() == [above]


def test_a_result_without_instances_is_kept():
    assert [len(r) for r in instances_file.read(instances_file.write([empty_result()], threshold=0.5))] == [0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no JSON", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (b'{"format": "s3seg.instances/1", "threshold": 0.5}', "results"),
        (b'{"format": "s3seg.instances/1", "threshold": 0.5, "results": [{}]}', "cannot be read"),
        (b'{"format": "s3seg.instances/9", "threshold": 0.5, "results": []}', "instances/9"),
    ],
)
def test_a_file_that_is_none_says_why(content, why):
    with pytest.raises(S3segError, match=why):
        instances_file.read(content)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -0.1, 1.5])
def test_a_threshold_that_is_not_a_score_is_refused(threshold):
    content = instances_file.write([empty_result()], threshold=0.5)
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        instances_file.read(content, threshold=threshold)

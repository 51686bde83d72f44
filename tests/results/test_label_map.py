"""Label maps as PNG, read back by two other libraries."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from s3seg.errors import MaskError
from s3seg.results.label_map import encode_label_map, encode_png
from tests.results.small_results import discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))


@given(
    grey=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda kind: arrays(kind, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 255))
    )
)
def test_a_png_is_read_back_as_it_was_by_other_libraries(grey):
    if grey.dtype == np.uint16:
        grey = grey * np.uint16(257)
    png = encode_png(grey)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), grey)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), grey)


def test_instances_of_several_results_are_numbered_by_falling_score():
    cats = result_of(STACK[:2], scores=[0.9, 0.5])
    dogs = result_of(STACK[2:], scores=[0.7])
    labels = np.asarray(Image.open(io.BytesIO(encode_label_map([cats, empty_result((40, 60)), dogs]))))
    assert [labels[10, 10], labels[30, 50], labels[20, 30]] == [1, 2, 3]
    assert labels[39, 0] == 0


def test_one_result_gives_the_label_map_that_it_has_as_an_array():
    result = result_of(STACK)
    labels = np.asarray(Image.open(io.BytesIO(encode_label_map([result]))))
    np.testing.assert_array_equal(labels, result.label_map())


def test_results_of_different_sizes_have_no_common_label_map():
    with pytest.raises(MaskError, match="size"):
        encode_label_map([result_of(STACK), result_of(STACK[:, :20])])

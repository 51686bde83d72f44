"""Masks made from logits without pixels are those of PyTorch's interpolation, and their encoding is COCO's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as pycocotools_mask
from torch.nn import functional as F

from s3seg.errors import MaskError
from s3seg.results import masks
from s3seg.sam3 import postprocess


def check(logits: np.ndarray, size: tuple[int, int]) -> None:
    """All of it interpolated is the oracle; only a logit of rounding error's size may fall on either side."""
    whole = torch.from_numpy(logits)[None, None]
    expected = F.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    rle = postprocess.encode(logits, size)
    mask = masks.decode(rle)
    wrong = mask != (expected > 0)
    assert (np.abs(expected[wrong]) < 1e-5).all(), expected[wrong]
    encoded = pycocotools_mask.encode(np.asfortranarray(mask, np.uint8))
    assert rle == masks.from_coco({"size": size, "counts": encoded["counts"]})


@given(
    logits=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-20, 20, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
    ),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_any_mask_is_the_interpolated_logits_above_zero(logits, size):
    check(logits, size)


@given(
    seed=st.integers(0, 2**32),
    cells=st.integers(1, 40),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    share=st.floats(0, 1),
)
def test_a_mask_of_a_few_cells_is_too(seed, cells, size, share):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((cells, cells), np.float32)
    near = rng.random((cells, cells)) < share
    check(np.where(near, logits, -np.abs(logits)), size)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (3, 5), (36, 36), (288, 288), (4000, 3000)])
def test_pictures_of_any_size(size):
    check(np.random.default_rng(1).standard_normal((36, 36), np.float32) - 0.5, size)


@pytest.mark.parametrize(("logits", "filled"), [(np.ones((3, 4)), True), (np.zeros((3, 4)), False)])
def test_all_and_nothing(logits, filled):
    assert (masks.decode(postprocess.encode(logits.astype(np.float32), (50, 70))) == filled).all()


def test_a_cell_that_is_no_number_is_background_with_what_lies_around_it():
    logits = np.ones((4, 4), np.float32)
    logits[1, 1] = np.nan
    check(logits, (19, 31))
    assert 0 < masks.area(postprocess.encode(logits, (19, 31))) < 19 * 31


def test_a_size_that_no_mask_has_is_refused():
    with pytest.raises(MaskError, match="not between"):
        postprocess.encode(np.ones((2, 2), np.float32), (0, 5))

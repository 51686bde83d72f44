"""ROI-align as two matrix products gives the same as an implementation that takes each sample in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from s3seg.sam3 import geometry
from tests.sam3.random_models import slow_roi_align

CHANNELS = 3
# Corners on a lattice of 1/64 cell: how many samples a bin takes is then the same in fp32 and fp64.
corners = st.integers(-4 * 64, 14 * 64).map(lambda n: n / 64)
boxes = st.tuples(corners, corners, corners, corners)
sizes = st.sampled_from([1, 2, 3, 7])
grids = st.tuples(st.integers(1, 10), st.integers(1, 10))


@given(
    prompts=st.integers(1, 3).flatmap(
        lambda count: st.lists(st.lists(boxes, min_size=count, max_size=count), min_size=1, max_size=3)
    ),
    size=sizes,
    grid=grids,
)
def test_any_boxes_are_pooled_as_by_the_loop(prompts, size, grid):
    """Includes boxes with reversed corners, without area, and partly or wholly outside of the map."""
    assume(not any(_has_a_sample_at_the_border(box, size, grid) for row in prompts for box in row))
    features = _features(len(prompts), grid)
    found = roi_align(features, torch.tensor(prompts), size)
    assert found.shape == (len(prompts), len(prompts[0]), CHANNELS, size, size)
    torch.testing.assert_close(found, _slow(features, torch.tensor(prompts), size), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "box",
    {
        "a point": [2.0, 3.0, 2.0, 3.0],
        "a line": [1.0, 3.0, 6.0, 3.0],
        "smaller than a cell": [2.25, 2.25, 2.375, 2.5],
        "the whole map": [0.0, 0.0, 8.0, 6.0],
        "larger than the map": [-3.0, -3.0, 12.0, 11.0],
        "outside": [20.0, 20.0, 30.0, 30.0],
        "before the first cell": [-9.0, -9.0, -4.0, -4.0],
        "across the far corner": [6.5, 4.5, 11.5, 9.5],
        "reversed": [5.0, 4.0, 2.0, 1.0],
        "one row high": [0.0, 2.0, 8.0, 3.0],
    }.items(),
    ids=lambda box: box[0],
)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_box_is_pooled_as_by_the_loop(box, size):
    features = _features(1, (6, 8))
    exact = torch.tensor([[box[1]]])
    torch.testing.assert_close(roi_align(features, exact, size), _slow(features, exact, size), atol=1e-5, rtol=1e-5)


def test_a_box_outside_pools_zeros_and_a_box_in_a_constant_map_its_value():
    features = torch.full((1, 2, 5, 5), 3.5)
    boxes = torch.tensor([[[7.0, 7.0, 9.0, 9.0], [0.5, 0.5, 4.0, 3.0]]])
    found = roi_align(features, boxes, 7)
    assert not found[0, 0].any()
    torch.testing.assert_close(found[0, 1], torch.full((2, 7, 7), 3.5))


def test_other_boxes_do_not_change_how_a_box_is_pooled():
    features = _features(2, (9, 9))
    small, large = [1.25, 2.0, 2.5, 3.0], [0.0, 0.0, 9.0, 9.0]  # 1 sample a bin, and 2
    together = roi_align(features, torch.tensor([[small, large], [large, small]]), 7)
    for row, order in enumerate(([small, large], [large, small])):
        for column, box in enumerate(order):
            alone = roi_align(features[row : row + 1], torch.tensor([[box]]), 7)
            torch.testing.assert_close(together[row, column], alone[0, 0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_sampled_in_fp32(dtype):
    features = _features(1, (8, 8)).to(dtype)
    boxes = torch.tensor([[[0.3, 1.1, 6.2, 7.9]]])
    found = roi_align(features, boxes, 7)
    assert found.dtype == dtype
    assert torch.equal(found, roi_align(features.float(), boxes, 7).to(dtype))


def roi_align(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """With as many samples as these boxes need."""
    longest = max(1.0, float((boxes[..., 2:] - boxes[..., :2]).max()))
    return geometry.roi_align(features, boxes, size, samples=math.ceil(longest / size))


def _features(prompts: int, grid: tuple[int, int]) -> Tensor:
    return torch.randn(prompts, CHANNELS, *grid, generator=torch.Generator().manual_seed(grid[0] * 16 + grid[1]))


def _slow(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    return torch.stack([slow_roi_align(f, b, size) for f, b in zip(features, boxes, strict=True)])


def _has_a_sample_at_the_border(box: tuple[float, ...], size: int, grid: tuple[int, int]) -> bool:
    """Whether a rounding error decides if a sample counts, because it lies exactly one cell outside of the map."""
    for start, end, cells in ((box[0], box[2], grid[1]), (box[1], box[3], grid[0])):
        length = max(end - start, 1.0)
        count = math.ceil(length / size) * size
        samples = [start + (i + 0.5) * length / count for i in range(count)]
        if any(abs(sample - edge) < 1e-4 for sample in samples for edge in (-1, cells)):
            return True
    return False

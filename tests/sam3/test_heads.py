"""The mask head gives the same results as its definition, computed in another order."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from s3seg.sam3.heads import doubling_kernel


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 4), (7, 3)])
@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (8, 8)])
def test_a_doubling_kernel_repeats_each_pixel_and_convolves(grid, channels):
    torch.manual_seed(0)
    inside, outside = channels
    x, weight = torch.randn(2, inside, *grid), torch.randn(outside, inside, 3, 3)
    found = F.conv_transpose2d(x, doubling_kernel(weight), stride=2, padding=1)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_doubling_kernel_has_the_precision_of_its_weights(dtype):
    assert doubling_kernel(torch.randn(4, 4, 3, 3).to(dtype)).dtype == dtype

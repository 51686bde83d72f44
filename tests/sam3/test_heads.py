"""The mask head gives the same results as its definition, computed in another order."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from s3seg.sam3.config import Sam3Config
from s3seg.sam3.heads import MaskHead, doubling_kernel
from tests.sam3.random_models import tiny_config


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


def test_mask_logits_beyond_the_range_of_fp16_are_finite_and_right():
    torch.manual_seed(0)
    head = MaskHead(Sam3Config.from_dict(tiny_config())).requires_grad_(False)
    head.query_mlp.layers[-1].weight *= 1e5
    queries, pixels = torch.randn(1, 3, 32), 8 * torch.randn(1, 32, 5, 5)
    expected = head(queries, pixels)
    assert expected.abs().max() > 2 * torch.finfo(torch.float16).max
    found = head.half()(queries.half(), pixels.half())
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=float(expected.abs().max()) * 0.01)

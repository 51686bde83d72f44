"""The forms for CUDA compute what PyTorch's operations compute. Tried on the CPU, where they are not used."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s3seg.sam3 import kernels

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture
def gradients():
    with torch.inference_mode(False), torch.enable_grad():
        yield


@pytest.fixture
def fast(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "FAST", "cpu")


def _norm(dtype: torch.dtype) -> nn.GroupNorm:
    norm = nn.GroupNorm(8, 32)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_group_norm_is_rounded_once(fast, dtype, mean):
    norm = _norm(dtype)
    x = (torch.randn(2, 32, 12, 10) + mean).to(dtype).contiguous(memory_format=torch.channels_last)
    exact = F.group_norm(x.double(), 8, norm.weight.double(), norm.bias.double())
    found = kernels.group_norm(x, norm)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=2e-5 * max(1, mean))


def test_group_norm_has_the_gradients_of_pytorchs(fast, gradients):
    norm = _norm(torch.bfloat16)
    x = torch.randn(2, 32, 6, 5).bfloat16().requires_grad_()
    weights = torch.randn(2, 32, 6, 5)
    (kernels.group_norm(x, norm) * weights).sum().backward()
    exact, same = x.detach().double().requires_grad_(), norm.double()
    found = [x.grad, norm.weight.grad, norm.bias.grad]
    expected = torch.autograd.grad(
        (F.group_norm(exact, 8, same.weight, same.bias) * weights).sum(), [exact, same.weight, same.bias]
    )
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert (one.double() - other).norm() / other.norm() < 0.01


def test_fp32_and_other_devices_keep_pytorchs_group_norm(monkeypatch):
    x, norm = torch.randn(1, 32, 4, 4), _norm(torch.float32)
    assert torch.equal(kernels.group_norm(x.bfloat16(), norm.bfloat16()), norm(x.bfloat16()))
    monkeypatch.setattr(kernels, "FAST", "cpu")
    assert torch.equal(kernels.group_norm(x, norm.float()), norm(x))


@pytest.mark.parametrize("dtype", HALF)
def test_a_linear_layer_with_relu_is_both_one_after_the_other(fast, dtype):
    layer, x = nn.Linear(16, 24, dtype=dtype), torch.randn(2, 3, 16, dtype=dtype)
    with torch.inference_mode():
        torch.testing.assert_close(kernels.linear_relu(x, layer), F.relu(layer(x)))


def test_gradients_pass_through_a_linear_layer_with_relu(fast, gradients):
    layer, x = nn.Linear(16, 24, dtype=torch.bfloat16), torch.randn(3, 16, dtype=torch.bfloat16)
    kernels.linear_relu(x, layer).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("rows", [1, 3], ids=["bias for all rows", "bias for each row"])
def test_attention_by_cudnn_is_given_a_bias_for_each_row(monkeypatch, rows):
    """A CPU has no cuDNN: PyTorch's own attention stands in for the call."""
    q, k, v = (torch.randn(3, 2, length, 8) for length in (5, 7, 7))
    bias = torch.randn(rows, 2, 5, 7)
    given = []

    def call(q, k, v, mask, log_sum):
        given.append((mask.shape, mask.is_contiguous(), log_sum))
        return (F.scaled_dot_product_attention(q, k, v, attn_mask=mask),)

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_cudnn_attention", call)
    with torch.inference_mode():
        torch.testing.assert_close(kernels.attend(q, k, v, bias, cudnn=True), kernels.attend(q, k, v, bias))
        assert kernels.cudnn_takes(q, k, v, bias)
    assert given == [((3, 2, 5, 7), True, False)] * 2


@pytest.mark.parametrize("wrong", [torch.zeros_like, lambda x: 1.1 * x, lambda x: x * torch.nan])
def test_a_cudnn_that_finds_something_else_is_not_used(monkeypatch, wrong):
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 900, 8)
    monkeypatch.setattr(
        torch.ops.aten,
        "_scaled_dot_product_cudnn_attention",
        lambda q, k, v, *_: (wrong(F.scaled_dot_product_attention(q, k, v)),),
    )
    with torch.inference_mode():
        assert not kernels.cudnn_takes(q, k, k)


def test_attention_with_gradients_is_pytorchs_choice(gradients):
    q = torch.randn(1, 2, 5, 8, requires_grad=True)
    kernels.attend(q, q, q, cudnn=True).sum().backward()
    assert q.grad is not None


def test_a_device_without_cudnn_does_not_take_it():
    q = torch.randn(1, 2, 5, 8)
    with torch.inference_mode():
        assert not kernels.cudnn_takes(q, q, q)

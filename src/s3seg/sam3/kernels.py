"""Other forms of a few operations, which are faster on CUDA in bf16 and fp16. What they compute is the same.

Everywhere else, and wherever gradients are needed of a form that has none, the operation is PyTorch's own: there the
outputs have to equal those of transformers bit for bit, or training needs it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAST = "cuda"
"""The type of device that these forms are for."""

_HALF = (torch.bfloat16, torch.float16)


def _is_fast(x: Tensor) -> bool:
    return x.device.type == FAST and x.dtype in _HALF


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalize a feature map (P, C, H, W) as ``norm`` does, with mean and variance in fp32; differentiable.

    The kernel of PyTorch gives each group of a map to a single block of threads. With eight groups a large map then
    takes seven times as long as here, where all multiprocessors take part, and the layout stays channels last.
    """
    if not _is_fast(x):
        return norm(x)
    count, channels, height, width = x.shape
    groups = norm.num_groups
    rows = x.permute(0, 2, 3, 1).reshape(count, height * width, groups, channels // groups)
    variance, mean = torch.var_mean(rows.float(), dim=(1, 3), correction=0, keepdim=True)  # (P, 1, groups, 1)
    scale = norm.weight.float().view(groups, -1) * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.float().view(groups, -1) - mean * scale
    normalized = torch.addcmul(shift, rows, scale).to(x.dtype)  # rounded once
    return normalized.view(count, height, width, channels).permute(0, 3, 1, 2)


def linear_relu(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer, then ReLU: (..., a) -> (..., b). On CUDA the matrix product does both, if it may.

    It may not where gradients are needed, because that operation has none.
    """
    training = torch.is_grad_enabled()
    if not _is_fast(x) or training or layer.weight.dtype != x.dtype:  # autocast brings two types together
        # in training not in place: the result is a view, whose gradient would be copied several times over
        return F.relu(layer(x), inplace=not training)
    flat = torch.ops.aten._addmm_activation(layer.bias, x.flatten(0, -2), layer.weight.t())
    return cast("Tensor", flat).unflatten(0, x.shape[:-1])


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, cudnn: bool = False) -> Tensor:
    """Scaled dot-product attention: (B, heads, N, width) to (B, heads, M, width).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: bool, or a bias in the dtype of ``q``; broadcast to (B, heads, N, M).
        cudnn: Use the kernel of cuDNN, which must take such shapes (`cudnn_takes`), where no gradients are needed. It
            is called by its name, because PyTorch's switches between kernels are common to all threads of the process.
    """
    if not cudnn or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if mask is not None and mask.shape[0] != q.shape[0]:  # cuDNN has not been tried with a bias for all rows
        mask = mask.expand(q.shape[0], -1, -1, -1).contiguous()
    return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, mask, False)[0]


def cudnn_takes(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> bool:
    """Try cuDNN's attention: whether it takes such shapes here, and finds what PyTorch's choice of kernel finds."""
    expected = attend(q, k, v, mask).float()
    try:
        found = attend(q, k, v, mask, cudnn=True).float()
    except (RuntimeError, AttributeError):  # it does not take them, or this PyTorch does not have it
        return False
    # of the norm: with thousands of keys the mean of random values is near 0, and so is any absolute difference
    return bool((found - expected).norm() <= 0.03 * expected.norm())

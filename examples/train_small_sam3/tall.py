"""Linear layers on very many short rows, whose gradients a GPU would sum up in too few places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PARTS = 256
MOST_ROWS = 100_000
"""With fewer rows, a layer stays as it is."""


class _TallLinear(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = context.saved_tensors
        to_x = gradient @ weight if context.needs_input_grad[0] else None
        gradient = gradient.reshape(PARTS, -1, gradient.shape[-1])
        to_weight = gradient.mT @ x.reshape(PARTS, -1, x.shape[-1])
        return to_x, to_weight.sum(0), gradient.sum(1).sum(0)


def tall_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `F.linear`, whose gradient of the weight is summed up in `PARTS` places at a time if there are many rows.

    A matrix product whose result is as small as 80 x 2, over millions of rows, would otherwise run on a few of a GPU's
    processors.
    """
    rows = x.numel() // x.shape[-1]
    if rows < MOST_ROWS or rows % PARTS:
        return F.linear(x, weight, bias)
    return _TallLinear.apply(x, weight, bias)


@contextmanager
def tall(modules: list[nn.Module]) -> Iterator[None]:
    """Let all linear layers within some modules compute `tall_linear`."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)]

    def of(layer: nn.Linear):
        return lambda x: tall_linear(x, layer.weight, layer.bias)

    for layer in layers:
        layer.forward = of(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own is seen again

"""How large the activations of a network get, and where they stop being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from s3seg.sam3.model import Sam3


def largest_activations(model: Sam3, run: Callable[[Sam3], object]) -> dict[str, tuple[float, int]]:
    """Record the output of every module while something runs.

    Returns:
        By name of the module, in the order in which they first ran: the largest finite absolute value, and how many
        values were infinite or NaN.
    """
    seen: dict[str, list[Tensor]] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if tensor.numel():
                    finite = tensor.isfinite()
                    largest = torch.where(finite, tensor.abs(), 0).max().double()
                    seen.setdefault(name, []).append(torch.stack([largest, (~finite).sum().double()]))

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, values in seen.items():
        both = torch.stack(values)
        found[name] = (both[:, 0].max().item(), int(both[:, 1].sum()))
    return found


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list):
        for one in output:
            yield from _tensors(one)

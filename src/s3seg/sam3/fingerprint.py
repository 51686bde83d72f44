"""A digest that tells weights apart, whatever file and device they are in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLES = 16


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of weights: 16 values of each tensor, at the precision of bfloat16.

    Args:
        tensors: By name, as ``state_dict`` returns them.
    """
    samples = [_evenly_spaced(tensor.flatten()).to(torch.bfloat16).float() for _, tensor in sorted(tensors.items())]
    values = torch.cat(samples).cpu().numpy()
    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:32]


def _evenly_spaced(values: Tensor) -> Tensor:
    """Return `_SAMPLES` of the values (n,), from the first to the last; all if there are fewer.

    Places are whole numbers: `torch.linspace` computes in fp32, which has no odd numbers above 2^24, and the text
    embedding of a full-size model has 50 million values.
    """
    count = min(_SAMPLES, len(values))
    places = [k * (len(values) - 1) // max(1, count - 1) for k in range(count)]
    return values[torch.tensor(places, dtype=torch.int64, device=values.device)]

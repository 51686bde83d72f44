"""Which precision is fast on this processor: found by trying, since a processor without bfloat16 emulates it slowly."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIDE = 256
_TRIES = 5
_FASTER = 2.0  # native bfloat16 is several times as fast as float32, emulated bfloat16 up to 30 times slower


@cache
def bfloat16_is_native() -> bool:
    """Return whether this processor multiplies bfloat16 matrices in hardware (AVX512-BF16, AMX or Arm's BF16).

    Multiplies two small matrices in both precisions and compares the times. Takes some milliseconds, once in a process.
    """
    try:
        return _fastest(torch.float32) > _FASTER * _fastest(torch.bfloat16)
    except RuntimeError:  # a build of PyTorch that cannot multiply bfloat16 on this processor
        return False


def _fastest(dtype: torch.dtype) -> float:
    """Return the seconds of the fastest of some multiplications; the first, which prepares the others, is not timed."""
    with torch.inference_mode():
        matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
        torch.matmul(matrix, matrix)
        times = []
        for _ in range(_TRIES):
            start = time.perf_counter()
            torch.matmul(matrix, matrix)
            times.append(time.perf_counter() - start)
    return min(times)

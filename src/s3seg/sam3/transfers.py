"""Copies between the host and an accelerator that do not make the host wait.

CUDA copies asynchronously only from and to pinned memory. PyTorch keeps pinned memory in a pool of its own, and uses a
piece of it again only after the copies from and to it have ended.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

ASYNCHRONOUS = "cuda"
"""The type of device whose copies need not be waited for."""

_SPIN_S = 0.002
_NAP_S = 0.00005


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device; on CUDA the host does not wait for the copy."""
    if device.type != ASYNCHRONOUS:
        return tensor.to(device)
    return rows_to_device([tensor], device)


def rows_to_device(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Join tensors of the host, (n, ...) each, along their first dimension, on a device; see `to_device`.

    NumPy copies them: PyTorch would wake a thread on every core for it, and those keep their cores busy afterwards.
    """
    if device.type != ASYNCHRONOUS:
        return (torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]).to(device)
    rows = sum(len(tensor) for tensor in tensors)
    pinned = torch.empty((rows, *tensors[0].shape[1:]), dtype=tensors[0].dtype, pin_memory=True)
    np.concatenate([tensor.numpy() for tensor in tensors], out=pinned.numpy())
    return pinned.to(device, non_blocking=True)


class HostCopies:
    """Copies of tensors in the host's memory. On CUDA they have only begun: call `wait` before reading them.

    Attributes:
        tensors: The copies, in the order of the originals.
    """

    def __init__(self, originals: Sequence[Tensor]) -> None:
        """Begin to copy tensors of one device, after everything that the device was told before."""
        self._event: torch.cuda.Event | None = None
        if not originals or originals[0].device.type != ASYNCHRONOUS:
            self.tensors = [tensor.cpu() for tensor in originals]
            return
        self.tensors = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in originals]
        for copy, original in zip(self.tensors, originals, strict=True):
            copy.copy_(original, non_blocking=True)
        self._event = torch.cuda.Event(blocking=True)
        self._event.record(torch.cuda.current_stream(originals[0].device))

    def wait(self) -> list[Tensor]:
        """Wait until the copies can be read, and return them. May be called from any thread, and repeatedly."""
        if self._event is not None:
            _wait(self._event)
        return self.tensors


def _wait(event: Any) -> None:
    """Wait for an event: keep looking for a moment, then look twenty thousand times a second at most.

    CUDA's own waiting either keeps a core busy, or sleeps until an interrupt, which in a virtual machine comes late.
    """
    end = time.perf_counter() + _SPIN_S
    while not event.query():
        time.sleep(0 if time.perf_counter() < end else _NAP_S)
    event.synchronize()  # has nothing left to wait for; raises what went wrong on the device


def from_array(array: np.ndarray) -> Tensor:
    """Make a tensor of an array, without copying it."""
    return torch.from_numpy(array)

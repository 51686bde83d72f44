"""Copies between the host and an accelerator that do not make the host wait.

CUDA copies asynchronously only from and to pinned memory. PyTorch keeps pinned memory in a pool of its own, and uses a
piece of it again only after the copies from and to it have ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ASYNCHRONOUS = "cuda"
"""The type of device whose copies need not be waited for."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device; on CUDA the host does not wait for the copy."""
    if device.type != ASYNCHRONOUS:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
        self._event = torch.cuda.Event(blocking=True)  # waits without keeping a core busy
        self._event.record(torch.cuda.current_stream(originals[0].device))

    def wait(self) -> list[Tensor]:
        """Wait until the copies can be read, and return them. May be called from any thread, and repeatedly."""
        if self._event is not None:
            self._event.synchronize()
        return self.tensors


def from_array(array: np.ndarray) -> Tensor:
    """Make a tensor of an array, without copying it."""
    return torch.from_numpy(array)

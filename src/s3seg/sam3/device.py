"""Status and memory of the device that a model runs on."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The current state of a device. Without a GPU, everything but `gpu` is None."""

    gpu: bool
    name: str | None = None
    memory_used_mb: float | None = None
    """Memory in use by all processes, in MB of 2^20 bytes."""
    memory_total_mb: float | None = None
    """In MB of 2^20 bytes."""


def device_status(device: torch.device) -> DeviceStatus:
    """Query the driver for a device's name and memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceStatus(True, torch.cuda.get_device_name(device), (total - free) / 2**20, total / 2**20)
    if device.type == "mps":
        used, total = torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        return DeviceStatus(True, "Apple GPU", used / 2**20, total / 2**20)
    return DeviceStatus(False)


def free_cached_memory(device: torch.device) -> None:
    """Release the memory that the allocator holds in reserve; used after an out-of-memory error."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()

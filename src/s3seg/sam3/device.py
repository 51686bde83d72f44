"""What the device that a model runs on says of itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device now. Numbers are None where there is no GPU with memory of its own."""

    gpu: bool
    name: str | None = None
    memory_used_mb: float | None = None
    memory_total_mb: float | None = None


def device_status(device: torch.device) -> DeviceStatus:
    """Ask the driver: memory is what all processes use, in MB of 2^20 bytes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceStatus(True, torch.cuda.get_device_name(device), (total - free) / 2**20, total / 2**20)
    if device.type == "mps":
        used, total = torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        return DeviceStatus(True, "Apple GPU", used / 2**20, total / 2**20)
    return DeviceStatus(False)


def free_cached_memory(device: torch.device) -> None:
    """Give back what the allocator keeps in reserve, after memory has run out."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()

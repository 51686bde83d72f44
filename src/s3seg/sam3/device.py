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


def prepare(device: torch.device, dtype: torch.dtype) -> None:
    """Choose how CUDA computes, for the whole process; on other devices this does nothing.

    PyTorch lets convolutions round fp32 to TF32 by default, which is as coarse as fp16 (errors of 3e-4). A network in
    float32 turns that off. cuDNN's attention makes a plan for every new shape, which takes hundreds of milliseconds
    (https://github.com/modelscope/FunASR/issues/3704), and prompts have many shapes: the other fused kernels remain.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    if dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False

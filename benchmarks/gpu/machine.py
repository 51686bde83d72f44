"""What a measurement was made on: card, driver, versions and precision settings, and the rates that bound it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu.timing import measure
from benchmarks.timing import machine


def describe(device: torch.device) -> dict[str, Any]:
    """Name everything that a figure depends on."""
    about: dict[str, Any] = {
        "machine": machine(),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "command": " ".join(["python", "-m", "benchmarks.gpu.part", *sys.argv[1:]]),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        }
    else:
        about |= {"card": "none: a run at small size on the CPU, whose times mean nothing"}
    return about


def use_full_precision() -> None:
    """Switch TF32 off for matrix products and for convolutions, where PyTorch has it on by default."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def matmul_tflops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Measure the rate of a product of two random square matrices, in TFLOP/s."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / measure(lambda: a @ b, device).milliseconds / 1e9


def copy_gb_per_s(device: torch.device, megabytes: int) -> float:
    """Measure a copy within the device's memory, counting bytes read and written, in GB/s."""
    source = torch.randn(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure(lambda: target.copy_(source), device).milliseconds / 1e6


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""Time work on a device, count its waits, and see which kernels it runs."""

from __future__ import annotations

import gc
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gpu.deadline import Deadline

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of the runs of one thing, after it has been warmed up.

    Attributes:
        milliseconds: Between two CUDA events around a run; on the CPU the same as `host_ms`.
        host_ms: From the call to the end of all work on the device.
        fastest, slowest: Of `milliseconds`.
        runs: How many were timed.
        peak_mb: The most memory that tensors took on the device, weights included; None on the CPU.
    """

    milliseconds: float
    host_ms: float
    fastest: float
    slowest: float
    runs: int
    peak_mb: float | None


def measure(
    run: Callable[[], object],
    device: torch.device,
    *,
    runs: int = 30,
    warmup: int = 3,
    seconds: float = 6.0,
    deadline: Deadline | None = None,
) -> Measured:
    """Time something that runs on a device.

    Args:
        run: What to time.
        device: Where it runs.
        runs: How often, at most.
        warmup: Runs before these.
        seconds: Stop after this long, but not before five runs.
        deadline: Stop when it has passed, whatever the number of runs.
    """
    cuda = device.type == "cuda"
    for _ in range(warmup):
        run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    device_ms: list[float] = []
    host_ms: list[float] = []
    while len(host_ms) < runs:
        elapsed = time.perf_counter() - begin
        if host_ms and ((elapsed > seconds and len(host_ms) >= 5) or (deadline and not deadline.left)):
            break
        taken, on_device = _time_once(run, cuda=cuda)
        host_ms.append(taken)
        device_ms.append(on_device)
    return Measured(
        milliseconds=statistics.median(device_ms),
        host_ms=statistics.median(host_ms),
        fastest=min(device_ms),
        slowest=max(device_ms),
        runs=len(host_ms),
        peak_mb=torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
    )


def _time_once(run: Callable[[], object], *, cuda: bool) -> tuple[float, float]:
    """Return milliseconds by the host's clock and by CUDA events."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if cuda else []
    start = time.perf_counter()
    if events:
        events[0].record()
    run()
    if events:
        events[1].record()
        torch.cuda.synchronize()
    host = (time.perf_counter() - start) * 1000
    return host, events[0].elapsed_time(events[1]) if events else host


def count_waits(run: Callable[[], object]) -> Counter[str]:
    """Count where the host waits for the device, by source line: operations that do, and events, each counted once."""
    waited: dict[int, str] = {}
    events = []  # kept, so that no two have the same id
    synchronize = torch.cuda.Event.synchronize

    def counted(event: torch.cuda.Event) -> None:
        events.append(event)
        caller = sys._getframe(1)
        waited.setdefault(id(event), f"{_short(caller.f_code.co_filename)}:{caller.f_lineno}")
        synchronize(event)

    previous = torch.cuda.get_sync_debug_mode()
    with (
        warnings.catch_warnings(record=True) as caught,
        mock.patch.object(torch.cuda.Event, "synchronize", counted),
    ):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(previous)
    operations = [one for one in caught if "called a synchronizing" in str(one.message)]
    return Counter([*(f"{_short(one.filename)}:{one.lineno}" for one in operations), *waited.values()])


def kernels(run: Callable[[], object], device: torch.device) -> list[tuple[str, int, float]]:
    """Return the kernels of a run, the most expensive first: name, calls, milliseconds. On the CPU, operations."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        run()
        if cuda:
            torch.cuda.synchronize()
    found = []
    for event in profiler.key_averages():
        if cuda and "cuda" not in str(event.device_type).lower():
            continue  # the time of an operation is that of its kernels, which are listed themselves
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        found.append((event.key, event.count, spent / 1000))
    return sorted(found, key=lambda one: -one[2])


def free(device: torch.device) -> None:
    """Release the memory of what is not used any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _short(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(path.parts[-2:])

"""One part of the measurement, in a process of its own that `benchmarks.gpu.command` starts."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

import torch

from benchmarks.gpu.context import Context
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.machine import describe, use_full_precision
from benchmarks.gpu.report import Report


def main() -> int:
    """Run a part; 1 if a comparison failed or a measurement broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="when it has to end, seconds since the epoch")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # its time is up: end the servers that it started
    return 0 if run_part(arguments.part, arguments.out, quick=arguments.quick, until=arguments.until) else 1


def run_part(part: str, out: Path, *, quick: bool, until: float) -> bool:
    """Run a part in this process and write its report; return whether all of it was in order."""
    use_full_precision()
    device = torch.device("cpu" if quick else "cuda")
    report = Report(part, out, {"quick": quick, "about": describe(device)})
    importlib.import_module(f"benchmarks.gpu.{part}").run(Context(device, quick, report, Deadline(until)))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

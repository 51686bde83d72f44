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
    use_full_precision()
    device = torch.device("cpu" if arguments.quick else "cuda")
    report = Report(arguments.part, arguments.out, {"quick": arguments.quick, "about": describe(device)})
    context = Context(device, arguments.quick, report, Deadline(arguments.until))
    importlib.import_module(f"benchmarks.gpu.{arguments.part}").run(context)
    return 0 if report.finish() else 1


if __name__ == "__main__":
    sys.exit(main())

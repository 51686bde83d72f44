"""Run the measurements that need no services, or the ones named: ``python -m benchmarks prompts rle``."""

from __future__ import annotations

import importlib
import sys

from benchmarks.timing import machine

DEFAULT = ("start", "prompts", "rle")

if __name__ == "__main__":
    print(machine())
    for name in sys.argv[1:] or DEFAULT:
        importlib.import_module(f"benchmarks.{name}").main()

"""Run the measurements that need no services, or the ones named: ``python -m benchmarks prompts rle``.

``python -m benchmarks gpu`` takes arguments of its own; see ``benchmarks/gpu/README.md``. So do
``bulk``, ``cold_start``, ``edge``, ``fleet`` and ``postgrest``; see their ``--help``.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks.timing import machine

DEFAULT = ("start", "prompts", "rle")
WITH_ARGUMENTS = ("bulk", "cold_start", "edge", "fleet", "postgrest")

if __name__ == "__main__":
    names = sys.argv[1:] or DEFAULT
    if names[0] == "gpu":
        from benchmarks.gpu.command import main

        sys.exit(main(names[1:]))
    print(machine())
    if names[0] in WITH_ARGUMENTS:
        sys.exit(importlib.import_module(f"benchmarks.{names[0]}").main(names[1:]))
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()

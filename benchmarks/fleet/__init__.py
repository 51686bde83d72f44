"""How many pull workers one Postgres carries: ``python -m benchmarks fleet``.

Measures each call of a worker on a real PostgreSQL behind PostgREST, runs 100 fake workers on it, and simulates 1 to
1,000 workers with the times that were just measured.

    --quick         few calls and workers, to see that it runs; its figures mean nothing
    --write FOLDER  write fleet.json, and from it the table and the plot of docs/explanation/fleet.md
    --draw FOLDER   the same from the fleet.json that is there, without measuring
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.fleet.page import as_text, write_page
from benchmarks.fleet.simulation import Calls, Fleet, simulate
from benchmarks.timing import machine

WORKERS = (1, 3, 10, 30, 100, 300, 1000)
_BUSY = 0.5
_TASK_S = 2.0


def main(arguments: Sequence[str] = ()) -> int:
    """Measure, simulate, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fleet", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few calls and workers; the figures mean nothing")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write JSON, table and plot: docs/explanation")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="table and plot from the JSON that is there")
    options = parser.parse_args(arguments)
    if options.draw is not None:
        write_page(options.draw, json.loads((options.draw / "fleet.json").read_text()))
        return 0
    found = measure(quick=options.quick)
    print(as_text(found))
    if options.write is not None:
        (options.write / "fleet.json").write_text(json.dumps(found, indent=1) + "\n")
        write_page(options.write, found)
    return 0


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure on real servers, then simulate; return plain values, as ``fleet.json`` has them."""
    from benchmarks.fleet.real import measure_calls, real_project, run_fleet

    fleet = Fleet(workers=5 if quick else 100, task_s=0.2 if quick else _TASK_S, poll_s=1.0, busy=_BUSY)
    with real_project() as project:
        held = (50,) if quick else (1000, 24_000)
        calls = asyncio.run(measure_calls(project, seconds=0.1 if quick else 3.0, held=held))
        real = asyncio.run(run_fleet(project, fleet, seconds=1.0 if quick else 30.0))
        without_work = Fleet(fleet.workers, fleet.task_s, fleet.poll_s, busy=0.0)
        idle = asyncio.run(run_fleet(project, without_work, seconds=1.0 if quick else 15.0))
    times = Calls.of(calls)
    seconds = 20.0 if quick else 120.0
    simulated = [
        asdict(simulate(Fleet(workers, _TASK_S, poll_s, busy), times, seconds=seconds))
        for poll_s in (1.0, 5.0)
        for busy in (0.0, _BUSY)
        for workers in (WORKERS[:3] if quick else WORKERS)
    ]
    return {
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "calls": calls,
        "real": asdict(real),
        "real_idle": asdict(idle),
        "same_simulated": asdict(simulate(fleet, times, seconds=seconds)),
        "simulated": simulated,
    }

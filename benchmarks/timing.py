"""Time several ways of doing one thing in turns, so that all of them see the same machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of the runs of one way."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.runs)


def in_turns(ways: Mapping[str, Callable[[], object]], *, rounds: int = 7, warmup: int = 1) -> dict[str, Timing]:
    """Run each way once a round."""
    runs: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn >= warmup:
                runs[name].append((time.perf_counter() - start) * 1000)
    return {name: Timing(tuple(taken)) for name, taken in runs.items()}


def machine() -> str:
    """What was measured on, in a line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:  # noqa: PTH123 (a device, not a file)
            model = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def show(title: str, rows: Mapping[str, Mapping[str, Timing]]) -> None:
    """Print a table: a row a case, a column a way, and the ratio of each further way to the first.

    Ratios are medians of the ratios within each round.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    first, *others = next(iter(rows.values()))
    table.add_column(f"{first}, ms", justify="right")
    for name in others:
        table.add_column(f"{name}, ms", justify="right")
        table.add_column(f"{name} / {first}", justify="right")
    for case, ways in rows.items():
        cells = [case, f"{ways[first].median:.1f}"]
        for name in others:
            ratio = statistics.median(b / a for a, b in zip(ways[first].runs, ways[name].runs, strict=True))
            cells += [f"{ways[name].median:.1f}", f"{ratio:.2f}"]
        table.add_row(*cells)
    Console(width=120).print(table)

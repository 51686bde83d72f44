"""What a part of the measurement found: written as JSON after every row, and printed as tables."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.gpu.deadline import Deadline

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A measurement that stands alone.

    Attributes:
        name: As it is called in what was left out or failed.
        run: Measures and adds rows to the report.
        seconds: How long it takes at most; it is left out if less time is left.
    """

    name: str
    run: Callable[[], None]
    seconds: float


class Report:
    """The rows of one part, by table.

    The JSON file is complete at any moment, so a part that is killed leaves what it had measured by then.

    Args:
        part: Name of the part, and of its files.
        folder: Folder for ``PART.json`` and ``PART.svg``.
        about: What was measured, and on which machine.
    """

    def __init__(self, part: str, folder: Path, about: Mapping[str, Any]) -> None:
        self.part, self._folder, self._about = part, folder, dict(about)
        self.tables: dict[str, list[Row]] = {}
        self.left_out: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []
        self.complete = False
        self._write()

    def add(self, table: str, **row: Any) -> None:
        """Add a row to a table. A row whose ``ok`` is False makes the whole command fail."""
        self.tables.setdefault(table, []).append(row)
        self._write()

    def leave_out(self, what: str, why: str) -> None:
        """Note that something was not measured, and why."""
        self.left_out.append({"what": what, "why": why})
        self._write()

    def run(self, steps: Iterable[Step], deadline: Deadline) -> None:
        """Run steps one after another, and print how long each took. An error ends its step only."""
        for step in steps:
            if not deadline.allows(step.seconds):
                self.leave_out(step.name, f"takes up to {step.seconds:.0f} s, and {deadline.left:.0f} s were left")
                continue
            start = time.perf_counter()
            try:
                step.run()
            except Exception as err:  # whatever it is, the other steps still count
                self.failed.append({"what": step.name, "error": f"{type(err).__name__}: {err}"[:2000]})
                traceback.print_exc(limit=-6)
                self._write()
            print(f"{step.name}: {time.perf_counter() - start:.1f} s", flush=True)

    def finish(self) -> bool:
        """Mark the part as complete, and return whether everything that ran was in order."""
        self.complete = True
        self._write()
        return not self.failed and not _wrong(self.tables)

    def plot(self, title: str, bars: Mapping[str, float], *, unit: str) -> None:
        """Write ``PART.svg``: a horizontal bar for each value."""
        (self._folder / f"{self.part}.svg").write_text(bar_chart(title, bars, unit=unit), encoding="utf-8")

    def _write(self) -> None:
        content = {
            "part": self.part,
            **self._about,
            "complete": self.complete,
            "left_out": self.left_out,
            "failed": self.failed,
            "tables": self.tables,
        }
        temporary = self._folder / f"{self.part}.json.new"
        temporary.write_text(json.dumps(_without_nan(content), indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._folder / f"{self.part}.json")


def print_part(content: Mapping[str, Any]) -> None:
    """Print the JSON of a part: what it was measured on, its tables, and what is missing from them."""
    print(", ".join(f"{name} {value}" for name, value in content["about"].items()))
    for title, rows in content["tables"].items():
        _print_table(title, rows)
    for one in content["left_out"]:
        print(f"left out: {one['what']} ({one['why']})")
    for one in content["failed"]:
        print(f"failed: {one['what']}: {one['error']}")
    for row in _wrong(content["tables"]):
        print(f"not in order: {row}")


def _print_table(title: str, rows: list[Row]) -> None:
    """Print rows, which may have different columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "kernel"))
    columns += ["kernel"] if any("kernel" in row for row in rows) else []  # its long names go last
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        text = any(isinstance(row.get(name), str) for row in rows)
        table.add_column(name.replace("_", " "), justify="left" if text else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    Console(width=150).print(table)


def _wrong(tables: Mapping[str, list[Row]]) -> list[Row]:
    return [row for rows in tables.values() for row in rows if row.get("ok") is False]


def bar_chart(title: str, bars: Mapping[str, float], *, unit: str) -> str:
    """Draw an SVG with a horizontal bar for each value, as long as the value."""
    longest = max(bars.values(), default=0) or 1
    lines = []
    for number, (name, value) in enumerate(bars.items()):
        y = 48 + 22 * number
        lines += [
            f'<text x="330" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="340" y="{y}" width="{max(1, 420 * value / longest):.1f}" height="16" fill="#4477aa"/>',
            f'<text x="{348 + 420 * value / longest:.1f}" y="{y + 12}">{value:.3g} {escape(unit)}</text>',
        ]
    size = f'width="860" height="{60 + 22 * len(bars)}"'
    style = 'font-family="sans-serif" font-size="12"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="12" y="24" font-size="14">{escape(title)}</text>',
            *lines,
            "</svg>\n",
        ]
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: write them as words."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

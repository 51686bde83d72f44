"""The table and the plot of docs/explanation/fleet.md, from the values of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- made by python -m benchmarks fleet -->\n", "<!-- end of what was made -->\n"


def write_page(folder: Path, found: Mapping[str, Any]) -> None:
    """Put the tables into ``fleet.md`` and draw the plot, which is ``../images/fleet.svg``."""
    page = folder / "fleet.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(before + _BEGIN + as_text(found) + _END + after)
    draw(folder.parent / "images" / "fleet.svg", found["simulated"])


def as_text(found: Mapping[str, Any]) -> str:
    """Return all tables as Markdown."""
    calls = [
        [name, f"{one['alone_ms']:.1f}", f"{one['per_second']:.0f}"] for name, one in sorted(found["calls"].items())
    ]
    rows = [_row("100 fake workers, real", found["real"]), _row("the same, simulated", found["same_simulated"])]
    rows[0][0] = f"{found['real']['workers']} fake workers, real"
    rows.append(_row(f"{found['real_idle']['workers']} idle fake workers, real", found["real_idle"]))
    simulated = [_row(_named(one), one) for one in found["simulated"]]
    head = ["", "claims/s", "empty polls/s", "submit to claim p50, ms", "p99, ms", "empty poll p99, ms", "used"]
    return "\n".join(
        [
            f"\nMeasured on {found['machine']}, {found['date']}.\n",
            "**Each call, with one connection and with 16:**\n",
            *_table(["call", "alone, ms", "calls a second"], calls),
            "\n**Real workers beside the simulation:**\n",
            *_table([*head, "failed"], [[*row, str(one["failed"])] for row, one in zip(
                rows, (found["real"], found["same_simulated"], found["real_idle"]), strict=True)]),
            "\n**Simulated:**\n",
            *_table(head, simulated),
            "",
        ]
    )  # fmt: skip


def _named(one: Mapping[str, Any]) -> str:
    work = "idle" if not one["busy"] else f"{one['busy']:.0%} busy"
    return f"{one['workers']} workers, {work}, a poll every {one['poll_s']:g} s"


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    used = "" if one["used"] is None else f"{one['used']:.0%}"
    numbers = (one["claims_per_s"], one["polls_per_s"], one["wait_p50_ms"], one["wait_p99_ms"], one["poll_p99_ms"])
    return [name, *(f"{number:.0f}" if number >= 10 else f"{number:.1f}" for number in numbers), used]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def draw(path: Path, simulated: Sequence[Mapping[str, Any]]) -> None:
    """Draw how long tasks wait and how much of the database is used, by the number of workers."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "s3seg", "font.family": "sans-serif"})  # the same file from the same values
    import matplotlib.pyplot as plt

    figure, (waits, used) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for poll_s, colour in ((1.0, "#1f77b4"), (5.0, "#ff7f0e")):
        for busy, style in ((0.0, ":"), (0.5, "-")):
            points = [one for one in simulated if (one["poll_s"], one["busy"]) == (poll_s, busy)]
            workers = [one["workers"] for one in points]
            label = f"poll every {poll_s:g} s, {'idle' if not busy else 'half busy'}"
            used.plot(workers, [100 * one["used"] for one in points], style, color=colour, marker="o", label=label)
            if busy:
                waits.plot(workers, [one["wait_p99_ms"] for one in points], style, color=colour, marker="o")
                waits.plot(workers, [one["wait_p50_ms"] for one in points], "--", color=colour, marker=".")
    waits.set(xscale="log", yscale="log", xlabel="workers", ylabel="submit to claim, ms (p50 dashed)")
    used.set(xscale="log", xlabel="workers", ylabel="time of the database used, %", ylim=(0, 105))
    used.legend(fontsize=8, frameon=False)
    for axes in (waits, used):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)

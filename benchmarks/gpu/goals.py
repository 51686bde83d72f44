"""The goals of the project on one H100 in bf16, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.gpu.ours import OURS, WAITS
from benchmarks.gpu.rates import TIMES
from benchmarks.gpu.theirs import THEIRS

GOALS = "Goals"
Row = Mapping[str, Any]
_Value = tuple[float, str]
"""A value, and the program that it is of."""


def goals(tables: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Compare what is in a report's tables with the goals.

    Args:
        tables: The rows of a report, by table.

    Returns:
        A row for each goal: what is wanted, the best value of our programs, of which program it is, and whether the
        goal is met: "yes", "no" or "not measured".
    """
    times = [row for row in tables.get(TIMES, []) if row["program"] != THEIRS]
    theirs = {row["what"]: row for row in tables.get(TIMES, []) if row["program"] == THEIRS}

    def of(what: str, column: str, choose: Any = min) -> _Value | None:
        found = [(row[column], row["program"]) for row in times if row["what"] == what and row[column] is not None]
        return choose(found, default=None)

    def against_theirs(what: str, other: str, column: str, *, plain: bool = False) -> _Value | None:
        rows = [row for row in times if row["what"] == what and (not plain or row["program"] == OURS)]
        base = theirs.get(other, {}).get(column)
        found = [(row[column] / base, row["program"]) for row in rows if base and row[column]]
        return min(found, default=None)

    one, eight = "pixels to RLE, 1 prompt", "pixels to RLE, 8 prompts"
    their_one, their_eight = "pixels to masks, 1 prompt", "pixels to masks, 8 prompts"
    image_rates = [of(row["what"], "of_the_rate", max) for row in times if row["what"].startswith("image, batch")]
    rate = max((found for found in image_rates if found), default=None)
    return [
        _goal("an image in a batch of 8, ms", 14, of("image, batch 8", "each_ms")),
        _goal("a prompt, ms", 3, of("1 prompt", "ms")),
        _goal("pixels to RLE with 1 prompt, ms", 22, of(one, "ms")),
        _goal("the same, share of the time of transformers", 0.5, against_theirs(one, their_one, "ms")),
        _goal("JPEG of 2 megapixels to RLE with 1 prompt, ms", 40, of("JPEG to RLE, 1 prompt", "ms")),
        _goal("8 prompts on an image, share of the time of transformers, one by one", 0.25,
              against_theirs(eight, their_eight, "ms")),
        _goal("image encoder, share of the card's rate", 0.5, rate, at_least=True),
        _goal("waits of a request", 2, _waits(tables.get(WAITS, []))),
        _goal("peak memory with 1 prompt, share of that of transformers", 0.6,
              against_theirs(one, their_one, "peak_mb", plain=True)),
    ]  # fmt: skip


def _goal(goal: str, limit: float, value: _Value | None, *, at_least: bool = False) -> dict[str, Any]:
    wanted = f"{'at least' if at_least else 'at most'} {limit:g}"
    if value is None:
        return {"goal": goal, "wanted": wanted, "measured": None, "of": None, "met": "not measured"}
    met = value[0] >= limit if at_least else value[0] <= limit
    return {"goal": goal, "wanted": wanted, "measured": value[0], "of": value[1], "met": "yes" if met else "no"}


def _waits(rows: Iterable[Row]) -> _Value | None:
    """Of the request that waits most; boxes have no goal of their own, and count too."""
    return max(((row["waits"], OURS) for row in rows if row["line"] == "all"), default=None)

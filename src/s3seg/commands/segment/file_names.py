"""Parts of file names: safe on every system, and distinct."""

from __future__ import annotations

import re
from collections.abc import Sequence


def slug(text: str) -> str:
    """Turn text into a part of a file name: "A red car!" becomes "a-red-car"."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "prompt"


def distinct(names: Sequence[str]) -> list[str]:
    """Append -2, -3 ... to names that occurred before. Upper and lower case count as equal."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate.casefold() in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result

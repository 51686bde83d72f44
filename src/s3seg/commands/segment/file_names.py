"""Parts of file names: safe on every system, distinct, and short enough."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence

_MAX_BYTES = 255  # of one name, on all common file systems

# Windows reserves these names for devices, whatever follows a dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def slug(text: str) -> str:
    """Turn text into a part of a file name: "A red car!" becomes "a-red-car"."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "prompt"


def safe(part: str) -> str:
    """Return a file or folder name with every character and word replaced that some system does not allow.

    The result is never "", "." or "..".
    """
    name = "".join("-" if c in '<>:"/\\|?*%' or ord(c) < 32 or ord(c) == 127 else c for c in part)
    if not name or name[-1] in " .":  # Windows drops them
        name = f"{name[:-1]}_"
    return f"_{name}" if _RESERVED.match(name) else name


def fitted(name: str, ending: str) -> str:
    """Join the parts of a file name, and shorten the first if file systems could not store the whole.

    A shortened name ends in a digest of the original, so that two of them do not become equal.
    """
    if len(os.fsencode(name + ending)) <= _MAX_BYTES:
        return name + ending
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    room = _MAX_BYTES - len(os.fsencode(f"-{digest}{ending}"))
    return f"{os.fsencode(name)[:room].decode(errors='ignore')}-{digest}{ending}"


def distinct(names: Sequence[str], *, reserved: Sequence[str] = ()) -> list[str]:
    """Append -2, -3 ... to names that are reserved or occurred before. Upper and lower case count as equal."""
    taken = {name.casefold() for name in reserved}
    counts: dict[str, int] = {}
    result = []
    for name in names:
        candidate, count = name, counts.get(name, 1)
        while candidate.casefold() in taken:
            count += 1
            candidate = f"{name}-{count}"
        counts[name] = count
        taken.add(candidate.casefold())
        result.append(candidate)
    return result

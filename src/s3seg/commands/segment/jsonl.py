"""JSON Lines files that survive an interrupted write: each line is complete or ignored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s3seg.results.files import json_text


def read(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the complete lines of a file, as bytes and as objects; nothing if the file does not exist.

    A last line without its newline was cut off and is left out, as are lines that are not JSON objects.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield line, value


def encode(value: Any) -> str:
    """Return a value as one line of JSON, newline included."""
    return f"{json_text(value)}\n"


def append(path: Path, values: list[dict[str, Any]]) -> None:
    """Add lines in a single write. If the last line was cut off, a newline goes first."""
    data = "".join(map(encode, values)).encode()
    with path.open("a+b", buffering=0) as file:
        if file.tell() and _last_byte(path) != b"\n":
            data = b"\n" + data
        file.write(data)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)

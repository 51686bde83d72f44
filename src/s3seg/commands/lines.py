"""Files of JSON lines that survive being cut off: a line is whole, or it is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s3seg.results.files import json_text


def read(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines of a file, as bytes and as objects, up to one that was cut off; nothing if there is no file."""
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
    """One line of JSON, with its end; see `s3seg.results.files.json_text`."""
    return f"{json_text(value)}\n"


def append(path: Path, values: list[dict[str, Any]]) -> None:
    """Add lines in a single write, after an end of line where the last one was cut off."""
    data = "".join(map(encode, values)).encode()
    with path.open("a+b", buffering=0) as file:
        if file.tell() and _last_byte(path) != b"\n":
            data = b"\n" + data
        file.write(data)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)

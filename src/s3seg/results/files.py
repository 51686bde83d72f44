"""Writing files so that nobody ever sees half of one, and JSON that any file can hold."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write a file, fully or not at all: into a temporary file of the same folder, then renamed over `path`.

    Text is written as UTF-8. Whatever stops the writing, Ctrl-C included, leaves an existing
    file as it was and no temporary file behind.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; it names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        temporary.replace(path)
    except BaseException as err:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(err, OSError) and err.errno:  # nobody knows the temporary file
            raise OSError(err.errno, err.strerror, str(path)) from err
        raise
    return path


def json_text(value: Any) -> str:
    """JSON on one line.

    Letters of all languages stay as they are; file names that are not text (surrogates) are escaped.

    Raises:
        ValueError: a number in it is infinite or NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return text

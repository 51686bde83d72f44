"""Write files atomically, and JSON text that can always be encoded as UTF-8."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write a file completely or not at all: to a temporary file in the same folder, then renamed to `path`.

    Text is written as UTF-8. If writing fails or is interrupted (Ctrl-C included), an existing file keeps its
    content and no temporary file is left behind.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; its filename is `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")  # up to 4 bytes each, of 255
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        temporary.replace(path)
    except BaseException as err:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(err, OSError) and err.errno:  # name the file that the caller knows
            raise OSError(err.errno, err.strerror, str(path)) from err
        raise
    return path


def json_text(value: Any) -> str:
    """Encode a value as JSON on one line.

    Non-ASCII letters are kept; file names that are not valid Unicode (surrogates) are escaped.

    Raises:
        ValueError: a number is infinite or NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return text

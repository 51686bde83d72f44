"""The messages between a service and its decoding processes: a JSON object, and bytes.

Not pickle: a process that decodes untrusted pictures may have been taken over by one, and whoever unpickles its
answers would be taken over too.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_LENGTHS = struct.Struct(">II")
_MAX_JSON = 2**20


class EndOfStreamError(Exception):
    """The other side has ended."""


def write_message(stream: IO[bytes], fields: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write a message and flush the stream."""
    encoded = json.dumps(fields).encode()
    stream.write(_LENGTHS.pack(len(encoded), len(body)) + encoded)
    stream.write(body)
    stream.flush()


def read_message(stream: IO[bytes], *, max_body: int) -> tuple[dict[str, Any], bytes]:
    """Read a message.

    Raises:
        EndOfStreamError: The stream ended before the end of the message.
        ValueError: It is not a message, or is too long.
    """
    json_length, body_length = _LENGTHS.unpack(_read(stream, _LENGTHS.size))
    if json_length > _MAX_JSON or body_length > max_body:
        raise ValueError(f"a message of {json_length} + {body_length} bytes is too long")
    fields = json.loads(_read(stream, json_length))
    if not isinstance(fields, dict):
        raise ValueError("a message must be a JSON object")  # noqa: TRY004 - what was read is wrong, not a type here
    return fields, _read(stream, body_length)


def _read(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EndOfStreamError
    return content

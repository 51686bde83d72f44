"""The messages between a service and the process of its network: pickles, with arrays beside them.

Pickle is safe here: the process runs our own code, reads no encoded pictures, and is started by the service itself.
Arrays travel outside of the pickle, so they are not copied on the way. Encoded images stay on the device: what
travels is a number.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import IO, Any

from s3seg.sam3.transfers import from_array

_LENGTH = struct.Struct(">Q")


class EndOfStreamError(Exception):
    """The other side has ended."""


class Messages:
    """Reads and writes messages.

    Args:
        name: Returns what stands for an object that stays on this side, such as its number; None for all others.
        find: Returns the object that such a name of the other side stands for.
    """

    def __init__(self, *, name: Callable[[Any], Any], find: Callable[[Any], Any]) -> None:
        self._name = name
        self._find = find

    def write(self, stream: IO[bytes], message: Any) -> None:
        """Write a message and flush the stream."""
        buffers: list[pickle.PickleBuffer] = []
        content = io.BytesIO()
        _Pickler(content, self._name, buffers).dump(message)
        parts = [content.getbuffer(), *(buffer.raw() for buffer in buffers)]
        stream.write(_LENGTH.pack(len(parts)) + b"".join(_LENGTH.pack(part.nbytes) for part in parts))
        for part in parts:
            stream.write(part)
        stream.flush()

    def read(self, stream: IO[bytes]) -> Any:
        """Read a message.

        Raises:
            EndOfStreamError: The stream ended.
        """
        (count,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
        lengths = [_LENGTH.unpack(_read(stream, _LENGTH.size))[0] for _ in range(count)]
        content, *buffers = (_read(stream, length) for length in lengths)
        return _Unpickler(io.BytesIO(content), self._find, buffers).load()


class _Pickler(pickle.Pickler):
    def __init__(self, content: io.BytesIO, name: Callable[[Any], Any], buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(content, protocol=5, buffer_callback=buffers.append)
        self._name = name

    def persistent_id(self, obj: Any) -> Any:
        return self._name(obj)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__ == "torch" and type(obj).__name__ == "Tensor":
            return from_array, (obj.contiguous().cpu().numpy(),)  # PyTorch's own way copies into the pickle
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: io.BytesIO, find: Callable[[Any], Any], buffers: list[bytearray]) -> None:
        super().__init__(content, buffers=buffers)
        self._find = find

    def persistent_load(self, pid: Any) -> Any:
        return self._find(pid)


def _read(stream: IO[bytes], length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise EndOfStreamError
        view = view[count:]
    return content

"""Read the bytes of paths, file objects, upload objects and ``data:`` URLs."""

from __future__ import annotations

import base64
import binascii
import contextlib
import inspect
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from s3seg.errors import ImageDecodeError

_CHUNK = 2**20


@contextlib.contextmanager
def opened(path: str, name: str, *, max_bytes: int) -> Iterator[IO[bytes]]:
    """Open a file as a seekable stream; a pipe is read into memory.

    Raises:
        ImageDecodeError: The file cannot be opened; the message says why.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            yield file if file.seekable() else io.BytesIO(read_all(file, name, max_bytes=max_bytes))
    except FileNotFoundError as err:
        scheme, separator, _ = name.partition("://")
        if separator:
            raise ImageDecodeError(
                f"{name}: {scheme}:// addresses are not supported; pass a path or an http(s) URL"
            ) from err
        raise ImageDecodeError(f"{name}: there is no such file") from err
    except IsADirectoryError as err:
        raise ImageDecodeError(f"{name}: this is a folder, not an image") from err
    except PermissionError as err:
        # Windows answers "permission denied" when a folder is opened.
        if Path(path).expanduser().is_dir():
            raise ImageDecodeError(f"{name}: this is a folder, not an image") from err
        raise ImageDecodeError(f"{name}: no permission to read this file") from err
    except (OSError, ValueError, RuntimeError) as err:
        if isinstance(err, ImageDecodeError):
            raise
        raise ImageDecodeError(f"{name}: cannot be opened: {getattr(err, 'strerror', None) or err}") from err


def file_object(source: Any) -> Any:
    """Return the object to call ``read`` on: the source, or the ``file`` of an upload object.

    Upload objects of web frameworks have an asynchronous ``read``, or none, and a synchronous ``file``
    (Starlette, FastAPI, Litestar, aiohttp). None if the source is not a file object.
    """
    candidates = (source, getattr(source, "file", None))
    for candidate in candidates:
        read = getattr(candidate, "read", None)
        if callable(read) and not inspect.iscoroutinefunction(read):
            return candidate
    return source if callable(getattr(source, "read", None)) else None


def body_of(source: Any) -> bytes | None:
    """Return the body of the response of an HTTP library (requests, httpx), or None for other objects."""
    if not hasattr(source, "status_code"):
        return None
    try:
        body = source.content
    except Exception as err:  # of the library, such as httpx.ResponseNotRead
        raise ImageDecodeError(
            f"{type(source).__name__}: the body of the response was not read: {text_of(err) or type(err).__name__}"
        ) from err
    return body if isinstance(body, bytes) else None


def name_of(source: Any) -> str | None:
    """Return the name of a file object, if it is text: that of an open file, not the number of a descriptor.

    Upload objects have none: their file name was chosen by a client, and two uploads can have the same.
    """
    name = getattr(source, "name", None)
    if hasattr(source, "filename") or not isinstance(name, str | bytes | os.PathLike) or not name:
        return None
    return os.fsdecode(name)


def is_like_path(source: Any) -> bool:
    """Return whether a source is a path in all but type, as `zipfile.Path` is: it has ``read_bytes``."""
    return callable(getattr(source, "read_bytes", None))


def read_like_path(source: Any, name: str) -> bytes:
    """Return the bytes of a source that is like a path.

    Raises:
        ImageDecodeError: It cannot be read, or does not return bytes.
    """
    try:
        content = source.read_bytes()
    except ImageDecodeError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ImageDecodeError(f"{name}: cannot be read: {text_of(err) or type(err).__name__}") from err
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ImageDecodeError(f"{name}: read_bytes() returned {type(content).__name__} where bytes are expected")
    return bytes(content)


def text_of(source: object) -> str | None:
    """Return the text of an object; None if it has none, as a `zipfile.Path` in an archive in memory."""
    try:
        return str(source)
    except TypeError:
        return None


def position(stream: Any) -> int:
    """Return the position of a file object; 0 if it cannot seek."""
    try:
        return int(stream.tell()) if stream.seekable() else 0
    except (AttributeError, OSError, ValueError, TypeError):
        return 0


def read_all(stream: Any, name: str, *, max_bytes: int) -> bytes:
    """Read a file object from its position to its end.

    Raises:
        ImageDecodeError: It cannot be read, is not binary, or is longer than ``max_bytes``.
    """
    content = bytearray()
    while len(content) <= max_bytes:
        try:
            chunk = stream.read(min(_CHUNK, max_bytes + 1 - len(content)))
        except (OSError, ValueError, TypeError) as err:
            raise ImageDecodeError(f"{name}: cannot be read: {err or type(err).__name__}") from err
        if inspect.isawaitable(chunk):
            if inspect.iscoroutine(chunk):
                chunk.close()
            raise ImageDecodeError(f"{name}: its read() is asynchronous; pass the bytes: await file.read()")
        if isinstance(chunk, str):
            raise ImageDecodeError(f'{name}: the file is open as text; open it with mode "rb"')
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise ImageDecodeError(f"{name}: read() returned {type(chunk).__name__} where bytes are expected")
        if not chunk:
            return bytes(content)
        content += chunk
    raise ImageDecodeError(f"{name}: more than the {max_bytes} bytes that may be read from a stream (max_bytes)")


def is_data_url(source: Any) -> bool:
    """Return whether a source is text that starts like a ``data:`` URL."""
    return isinstance(source, str) and source[:64].lstrip().lower().startswith("data:") and "," in source


def decode_data_url(url: str, name: str, *, max_bytes: int) -> bytes:
    """Return the content of a ``data:`` URL (RFC 2397), base64 or percent-encoded.

    Raises:
        ImageDecodeError: The base64 is malformed, or the content is longer than ``max_bytes``.
    """
    header, _, body = url.strip().partition(",")
    if not header.lower().rstrip().endswith(";base64"):
        content = unquote_to_bytes(body)
    else:
        text = b"".join(unquote_to_bytes(body).split()).translate(bytes.maketrans(b"-_", b"+/"))
        try:
            content = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error as err:
            raise ImageDecodeError(f"{name}: its base64 is malformed or cut off: {err}") from err
    if len(content) > max_bytes:
        raise ImageDecodeError(f"{name}: more than the {max_bytes} bytes that may be read (max_bytes)")
    return content

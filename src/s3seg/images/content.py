"""Read the encoded bytes of a picture from any source that has some, without decoding them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from s3seg.images import MAX_BYTES, _streams, is_named, is_url
from s3seg.images._download import download, without_credentials


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a picture file.

    Attributes:
        data: The bytes as they are stored.
        name: The path or URL of the file; None if it has none, as for bytes.
    """

    data: bytes
    name: str | None


def read_content(source: Any, *, max_bytes: int = MAX_BYTES, timeout: float = 30.0) -> Content | None:
    """Return the bytes of a source of encoded bytes; None for decoded pictures (PIL, arrays, tensors).

    A file object is read from its position, or from its beginning if no picture starts at its position. Its name, and
    that of any other source, is the same as `s3seg.images.load` gives.

    Args:
        source: As for `s3seg.images.load`.
        max_bytes: Refuse longer files, downloads and streams.
        timeout: Seconds to wait for a server to connect, and for each part of its response.

    Raises:
        ImageDecodeError: The source cannot be read; the message names it and says why.
    """
    if is_named(source):
        name, source = source
        content = read_content(source, max_bytes=max_bytes, timeout=timeout)
        return None if content is None else Content(content.data, name)
    if isinstance(source, Image.Image):  # has a `read_bytes` of no file
        return None
    if isinstance(source, bytes | bytearray | memoryview):
        return Content(bytes(source), None)
    if _streams.is_data_url(source):
        return Content(_streams.decode_data_url(source, "data: URL", max_bytes=max_bytes), None)
    if is_url(source):
        name = without_credentials(source)
        return Content(download(source, name, max_bytes=max_bytes, timeout=timeout), name)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        label = path if len(path) <= 300 else f"{path[:300]}..."
        with _streams.opened(path, label, max_bytes=max_bytes) as file:
            return Content(_streams.read_all(file, label, max_bytes=max_bytes), path)
    if (body := _streams.body_of(source)) is not None:
        return Content(body, None)
    if (stream := _streams.file_object(source)) is not None:
        name = _streams.name_of(source)
        return Content(_from_stream(stream, name or "file object", max_bytes), name)
    if _streams.is_like_path(source):
        name = _streams.text_of(source)
        return Content(_streams.read_like_path(source, name or type(source).__name__), name)
    return None


def _from_stream(stream: Any, label: str, max_bytes: int) -> bytes:
    start = _streams.position(stream)
    content = _streams.read_all(stream, label, max_bytes=max_bytes)
    if start and not _is_picture(content):
        stream.seek(0)
        whole = _streams.read_all(stream, label, max_bytes=max_bytes)
        return whole if _is_picture(whole) or not content else content
    return content


def _is_picture(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)):
            return True
    except Exception:  # Pillow raises errors of many kinds for damaged headers
        return False

"""From whatever the user holds to a file that the service takes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from s3seg import images
from s3seg.errors import FileTooLargeError
from s3seg.images import ImageSource
from s3seg.tasks.limits import MAX_UPLOAD_BYTES

_CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture to be uploaded.

    Attributes:
        data: PNG, JPEG or WebP.
        content_type: Which of them.
        source: What results call it.
        pixels: ``(H, W, 3)`` uint8 RGB, as decoded here.
    """

    data: bytes
    content_type: str
    source: str
    pixels: npt.NDArray[np.uint8]


def prepare(source: ImageSource) -> Picture:
    """Read a picture. Files that the service takes go as they are; all else goes as PNG, which loses nothing.

    Raises:
        ImageDecodeError: It cannot be read.
        FileTooLargeError: It is more than 10 MB.
    """
    encoded = _encoded(source)
    if encoded is None:
        loaded = images.load(source)
    else:
        loaded = images.load(encoded, name=str(source) if isinstance(source, str | Path) else None)
    content_type = _CONTENT_TYPES.get(loaded.format or "")
    if encoded is None or content_type is None:
        encoded, content_type = _as_png(loaded.pixels), "image/png"
    if len(encoded) > MAX_UPLOAD_BYTES:
        raise FileTooLargeError(
            f"{loaded.source}: {len(encoded) / 2**20:.1f} MB as {content_type}, and the service takes at most 10; "
            "make it smaller, or save it as JPEG"
        )
    return Picture(encoded, content_type, loaded.source, loaded.pixels)


def _encoded(source: ImageSource) -> bytes | None:
    """The bytes of a file or of bytes; None for anything else, which `images.load` explains better if it is wrong."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | Path) and not str(source).lower().startswith(("http://", "https://")):
        try:
            path = Path(source).expanduser()
            return path.read_bytes() if path.is_file() else None
        except (OSError, RuntimeError):  # RuntimeError: no such home
            return None
    return None


def _as_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()

"""Prepares images for upload. Functions import numpy and Pillow, so that polling needs neither."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s3seg.errors import FileTooLargeError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from s3seg.images import ImageSource

_CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image to upload.

    Attributes:
        data: The bytes of a PNG, JPEG or WebP file.
        content_type: The content type of ``data``.
        source: Path or URL of the image; None if it has none.
        pixels: ``(H, W, 3)`` uint8 RGB, decoded on this machine.
    """

    data: bytes
    content_type: str
    source: str | None
    pixels: npt.NDArray[np.uint8]


def prepare(source: ImageSource) -> EncodedImage:
    """Read an image for upload. PNG, JPEG and WebP files are kept as they are; others are converted to PNG.

    Raises:
        ImageDecodeError: The image cannot be read.
        FileTooLargeError: The file to upload is larger than 10 MB.
    """
    from s3seg import images

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
            f"{loaded.source or 'the image'}: {len(encoded) / 2**20:.1f} MB as {content_type}, "
            "but the service accepts at most 10 MB; scale the image down, or save it as JPEG"
        )
    return EncodedImage(encoded, content_type, loaded.source, loaded.pixels)


def _encoded(source: ImageSource) -> bytes | None:
    """Return the encoded bytes if ``source`` is bytes or a readable file; None otherwise.

    `images.load` handles all other sources, and raises the errors.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | Path) and not str(source).lower().startswith(("http://", "https://")):
        try:
            path = Path(source).expanduser()
            return path.read_bytes() if path.is_file() else None
        except (OSError, RuntimeError):  # RuntimeError: there is no such home folder
            return None
    return None


def _as_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()

"""Checking uploaded files: the type is decided from the bytes, by decoding them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from s3seg.edge.filetypes import not_accepted
from s3seg.errors import FileTooLargeError, ImageDecodeError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES

_CONTENT_TYPES = MappingProxyType(
    {
        "PNG": "image/png",
        "JPEG": "image/jpeg",
        "MPO": "image/jpeg",  # a JPEG followed by a second picture, as some phones write
        "WEBP": "image/webp",
    }
)
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An uploaded file.

    Attributes:
        data: Content of the file.
        project_id: UUID of the project to file the image under, or None.
    """

    data: bytes
    project_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Type and size of a picture; width and height in pixels, after EXIF orientation."""

    content_type: str
    width: int
    height: int


def inspect(data: bytes, *, max_pixels: int, max_bytes: int = MAX_UPLOAD_BYTES) -> Picture:
    """Check that a file is a complete PNG, JPEG or WebP by decoding it, and return its type and size.

    Args:
        data: The file. Other formats are refused by their first bytes, before a decoder sees them.
        max_pixels: Largest number of pixels; checked before the pixels are decoded.
        max_bytes: Largest file.

    Raises:
        FileTooLargeError: The file has more than ``max_bytes``.
        ImageDecodeError: The file is not a complete picture of these formats and that size.
    """
    from s3seg import images  # Pillow and numpy: an edge that takes no uploads starts without them

    if len(data) > max_bytes:
        raise FileTooLargeError(f"the file is larger than {max_bytes} bytes ({max_bytes // 2**20} MB)")
    if not data:
        raise ImageDecodeError("file: the file is empty")
    if not _has_signature(data[:12]):
        raise ImageDecodeError(f"file: {not_accepted(data)}")
    picture = images.load(data, name="file", max_pixels=max_pixels)
    content_type = _CONTENT_TYPES.get(picture.format or "")
    if content_type is None:
        raise ImageDecodeError(f"file: {not_accepted(data)}")
    if content_type == "image/png" and _PNG_END not in data:  # a decoder that has read all pixels does not notice
        raise ImageDecodeError("file: the picture is truncated: its end is missing")
    return Picture(content_type=content_type, width=picture.width, height=picture.height)


def _has_signature(head: bytes) -> bool:
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (
        head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    )

"""Checking uploaded files: the type is decided from the bytes, by decoding them.

`s3seg.edge.picture_headers` checks them without a decoder.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from s3seg.edge.filetypes import not_accepted
from s3seg.errors import FileTooLargeError, ImageDecodeError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES

if TYPE_CHECKING:
    from s3seg.decoding import DecodingPool

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
        expires_in_s: Seconds after which the image is removed, or None for the operator's time.
    """

    data: bytes
    project_id: str | None = None
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Type and size of a picture; width and height in pixels, after EXIF orientation."""

    content_type: str
    width: int
    height: int


class Inspect(Protocol):
    """Checks that a file is a PNG, JPEG or WebP within the limits, and returns its type and size."""

    async def __call__(self, data: bytes, *, user_id: str, max_pixels: int) -> Picture:
        """Check a file of a user.

        Raises:
            FileTooLargeError: The file has more than 10 MB.
            ImageDecodeError: It is not a picture of these formats and that size, or cannot be decoded.
            UnavailableError: There is no capacity for it now.
        """
        ...


class ThreadedInspection:
    """Decodes files in threads, which cannot be stopped: only for users who are trusted.

    Args:
        at_once: Pictures decoded at the same time.
    """

    def __init__(self, at_once: int = 2) -> None:
        self._places = asyncio.Semaphore(at_once)

    async def __call__(self, data: bytes, *, user_id: str, max_pixels: int) -> Picture:
        """Check a file as `inspect` does."""
        async with self._places:
            return await asyncio.to_thread(inspect, data, max_pixels=max_pixels)


async def inspect_in(pool: DecodingPool, data: bytes, *, user_id: str, max_pixels: int) -> Picture:
    """Check a file as `inspect` does, in a decoding process.

    Args:
        pool: Decoding processes that run `s3seg.edge.inspection.inspect_upload`.
        data: The file. What is no picture by its first bytes is refused before it takes a process.
        user_id: Whose file it is.
        max_pixels: Largest number of pixels.

    Raises:
        FileTooLargeError: The file has more than 10 MB.
        ImageDecodeError: As `inspect`; also if decoding takes too long or too much memory.
        UnavailableError: No process became free in time.
    """
    check_head(data)
    fields, _ = await pool.run(
        data, user_id=user_id, name="file", max_pixels=max_pixels, max_memory=pool.options.memory
    )
    picture = Picture(
        content_type=str(fields["content_type"]), width=int(fields["width"]), height=int(fields["height"])
    )
    # a process that a hostile picture has taken over may answer anything
    if picture.content_type not in _CONTENT_TYPES.values() or not 0 < picture.width * picture.height <= max_pixels:
        raise ImageDecodeError("file: not a PNG, JPEG or WebP picture")
    return picture


def inspect(
    data: bytes, *, max_pixels: int, max_bytes: int = MAX_UPLOAD_BYTES, max_memory: int | None = None
) -> Picture:
    """Check that a file is a complete PNG, JPEG or WebP by decoding it, and return its type and size.

    Args:
        data: The file. Other formats are refused by their first bytes, before a decoder sees them.
        max_pixels: Largest number of pixels; checked before the pixels are decoded.
        max_bytes: Largest file.
        max_memory: Most memory that decoding may take, as estimated from the header; None takes the library's limit.

    Raises:
        FileTooLargeError: The file has more than ``max_bytes``.
        ImageDecodeError: The file is not a complete picture of these formats and that size.
    """
    from s3seg import images  # Pillow and numpy: an edge that takes no uploads starts without them

    check_head(data, max_bytes)
    picture = images.load(
        data, name="file", max_pixels=max_pixels, max_memory=images.MAX_MEMORY if max_memory is None else max_memory
    )
    content_type = _CONTENT_TYPES.get(picture.format or "")
    if content_type is None:
        raise ImageDecodeError(f"file: {not_accepted(data)}")
    if content_type == "image/png" and _PNG_END not in data:  # a decoder that has read all pixels does not notice
        raise ImageDecodeError("file: the picture is truncated: its end is missing")
    return Picture(content_type=content_type, width=picture.width, height=picture.height)


def check_head(data: bytes, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
    """Refuse a file that is too large, empty, or no PNG, JPEG or WebP by its first bytes.

    Raises:
        FileTooLargeError: The file has more than ``max_bytes``.
        ImageDecodeError: It is none of these formats.
    """
    if len(data) > max_bytes:
        raise FileTooLargeError(f"the file is larger than {max_bytes} bytes ({max_bytes // 2**20} MB)")
    if not data:
        raise ImageDecodeError("file: the file is empty")
    if not _has_signature(data[:12]):
        raise ImageDecodeError(f"file: {not_accepted(data)}")


def _has_signature(head: bytes) -> bool:
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (
        head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    )

"""Checking uploaded files without a decoder, with the standard library alone, where there is no Pillow.

The structure of a file is read: its format, its size in pixels, and whether it is complete. Its pixels are not
decoded, so a file whose pixels are damaged is accepted here; the worker refuses it, and its task ends in error and is
refunded. PNG by its specification (W3C, third edition), JPEG by ITU-T T.81 Annex B, WebP by RFC 9649, the orientation
by EXIF 2.32.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from s3seg.edge.uploads import Picture, check_head
from s3seg.errors import ImageDecodeError

_MAX_PARTS = 20_000  # chunks or segments of a file; a PNG of 10 MB in the usual chunks of 8 KiB has 1,280
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # sequential and progressive, Huffman or arithmetic
_JPEG_OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})  # lossless and hierarchical
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What a header says; width and height in pixels as stored, orientation as in EXIF."""

    content_type: str
    width: int
    height: int
    orientation: int = 1


async def inspect_header(data: bytes, *, user_id: str = "", max_pixels: int) -> Picture:
    """Check that a file is a PNG, JPEG or WebP by its structure, and return its type and size: an `Inspect`.

    Args:
        data: The file.
        user_id: Whose file it is; not used.
        max_pixels: Largest number of pixels.

    Raises:
        FileTooLargeError: The file has more than 10 MB.
        ImageDecodeError: The file is not a complete picture of these formats and that size.
    """
    check_head(data)
    try:
        header = _read(data)
    except IndexError:
        raise _truncated() from None
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise ImageDecodeError(f"file: the picture has no pixels (its size is {width} x {height})")
    if width * height > max_pixels:
        raise ImageDecodeError(
            f"file: too large: {width} x {height} is {width * height / 1e6:.1f} megapixels, "
            f"and the limit is {max_pixels / 1e6:.1f}; make it smaller"
        )
    if header.orientation >= 5:
        width, height = height, width
    return Picture(content_type=header.content_type, width=width, height=height)


def _read(data: bytes) -> _Header:
    if data.startswith(b"\x89PNG"):
        return _png(data)
    return _jpeg(data) if data.startswith(b"\xff\xd8") else _webp(data)


# ---- PNG ----


def _png(data: bytes) -> _Header:
    width = height = 0
    orientation, seen = 1, set[bytes]()
    for kind, start, end in _png_chunks(data):
        if (kind == b"IHDR") == bool(seen):
            raise _damaged("its first chunk must be IHDR, and no other")
        if kind == b"IHDR":
            width, height = _png_header(data[start:end])
        elif kind == b"eXIf":
            orientation = _orientation(data[start:end])
        seen.add(kind)
    if b"IDAT" not in seen:
        raise _damaged("it has no pixels")
    return _Header(content_type="image/png", width=width, height=height, orientation=orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each chunk; what is behind IEND is not read."""
    view, at = memoryview(data), 8
    for _ in range(_MAX_PARTS):
        start = at + 8
        end = start + _number(data, at, 4, "big")
        kind = data[at + 4 : start]
        if end + 4 > len(data):
            raise _truncated()
        if zlib.crc32(view[at + 4 : end]) != _number(data, end, 4, "big"):
            raise _damaged(f"the checksum of its chunk {kind!r} is wrong")
        yield kind, start, end
        if kind == b"IEND":
            return
        at = end + 4
    raise _damaged(f"it has more than {_MAX_PARTS} chunks")


def _png_header(header: bytes) -> tuple[int, int]:
    if len(header) != 13:
        raise _damaged("its header has a wrong length")
    depth, colour, compression, filtering, interlace = header[8:]
    if depth not in _PNG_DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise _damaged("its header has values that PNG does not define")
    return _number(header, 0, 4, "big"), _number(header, 4, 4, "big")


# ---- JPEG ----


def _jpeg(data: bytes) -> _Header:
    orientation, size = 1, (0, 0)
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0" and orientation == 1:
            orientation = _orientation(data[start + 6 : end])
        elif marker in _JPEG_OTHER_FRAMES:
            raise ImageDecodeError("file: a lossless or hierarchical JPEG picture; save it as an ordinary JPEG or PNG")
        elif marker in _JPEG_FRAMES:
            size = _jpeg_size(data[start:end])
        elif marker == 0xDA:  # the pixels begin; in them FF D9 is the end of the picture and nothing else
            if data.find(b"\xff\xd9", end) < 0:
                raise _truncated()
            break
    if size == (0, 0):
        raise _damaged("it has no size")
    return _Header(content_type="image/jpeg", width=size[0], height=size[1], orientation=orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to the first scan."""
    at = 2
    for _ in range(_MAX_PARTS):
        if data[at] != 0xFF:
            raise _damaged("it has bytes where a marker must be")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2
        if marker in _JPEG_BARE:
            continue
        if marker == 0xD9:
            raise _damaged("it has no pixels")
        length = _number(data, at, 2, "big")
        if length < 2:
            raise _damaged("a segment has a wrong length")
        if at + length > len(data):
            raise _truncated()
        yield marker, at + 2, at + length
        at += length
    raise _damaged(f"it has more than {_MAX_PARTS} segments")


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    if len(frame) < 6 or frame[5] not in (1, 3, 4) or len(frame) != 6 + 3 * frame[5]:
        raise _damaged("its header has values that JPEG does not define")
    if frame[0] != 8:
        raise ImageDecodeError(f"file: a JPEG picture of {frame[0]} bits; save it with 8 bits, or as PNG")
    return _number(frame, 3, 2, "big"), _number(frame, 1, 2, "big")


# ---- WebP ----


def _webp(data: bytes) -> _Header:
    end = 8 + _number(data, 4, 4, "little")
    if end > len(data):
        raise _truncated()
    orientation, size, has_pixels = 1, (0, 0), False
    for kind, start, stop in _webp_chunks(data, end):
        content = data[start : min(stop, start + 10)]
        if kind == b"VP8X":
            size = (1 + _number(content, 4, 3, "little"), 1 + _number(content, 7, 3, "little"))
        elif kind in (b"VP8 ", b"VP8L", b"ANMF"):
            has_pixels = True
            if size == (0, 0):  # an extended file gives the size of the whole before
                size = _webp_size(kind, content)
        elif kind == b"EXIF":
            orientation = _orientation(data[start:stop].removeprefix(b"Exif\0\0"))
    if not has_pixels:
        raise _damaged("it has no pixels")
    return _Header(content_type="image/webp", width=size[0], height=size[1], orientation=orientation)


def _webp_chunks(data: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(_MAX_PARTS):
        if at + 8 > end:
            return
        start = at + 8
        stop = start + _number(data, at + 4, 4, "little")
        if stop > end:
            raise _truncated()
        yield data[at : at + 4], start, stop
        at = stop + stop % 2
    raise _damaged(f"it has more than {_MAX_PARTS} chunks")


def _webp_size(kind: bytes, content: bytes) -> tuple[int, int]:
    if kind == b"VP8 ":
        if content[3:6] != b"\x9d\x01\x2a":
            raise _damaged("its pixels do not begin as they must")
        return _number(content, 6, 2, "little") & 0x3FFF, _number(content, 8, 2, "little") & 0x3FFF
    if kind != b"VP8L" or content[:1] != b"\x2f":
        raise _damaged("its pixels do not begin as they must")
    sizes = _number(content, 1, 4, "little")
    return (sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1


# ---- EXIF ----


def _orientation(exif: bytes) -> int:
    """Return the orientation of EXIF data; 1 if it has none, or is damaged, which does not make a picture so."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1
    try:
        at = _number(exif, 4, 4, order)
        for entry in range(at + 2, at + 2 + 12 * _number(exif, at, 2, order), 12):
            if _number(exif, entry, 2, order) == _ORIENTATION:
                value = _number(exif, entry + 8, 2, order)
                return value if 1 <= value <= 8 else 1
    except IndexError:
        pass
    return 1


def _number(data: bytes, at: int, size: int, order: str) -> int:
    """Read an unsigned integer; raises IndexError if the data ends before it does."""
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]


def _damaged(why: str) -> ImageDecodeError:
    return ImageDecodeError(f"file: the picture is damaged: {why}")


def _truncated() -> ImageDecodeError:
    return ImageDecodeError("file: the picture is truncated: its end is missing")

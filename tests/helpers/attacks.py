"""Malicious requests, for tests of every kind of edge."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

from tests.helpers.pictures import encoded

_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SCRIPT = b"<html><body><script>alert(document.domain)</script></body></html>"

NOT_PICTURES = {
    "empty": b"",
    "zeros": b"\x00" * 100,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": b"<html><body>hello</body></html>",
    "svg behind a PNG signature": b"\x89PNG\r\n\x1a\n" + b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "webp header only": b"RIFF\x00\x00\x00\x00WEBP",
    "php in a jpeg header": b"\xff\xd8\xff\xe0" + b"<?php echo 1; ?>",
}
"""Files without any part of a picture."""

BAD_PROMPTS = (
    "",
    " ",
    "\n",
    "x" * 501,
    "cat\0",
    "\x1b[31mcat",
    "cat\x7f",
    "\ud800",
    "\u2066",
    "\u2028",
    "\u200b",
)
"""What can be no prompt."""

GOOD_PROMPTS = ("x", "x" * 500, "고양이", "👩‍👩‍👧", "naïve café", "'; DROP TABLE tasks; --", "<script>")
"""What looks odd, and is one."""


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be a large picture, and unpacks to ten megabytes in any case."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000), 9)  # a thousand times smaller than what it unpacks to
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def slow_jpeg(*, side: int = 7000, scans: int = 20_000) -> bytes:
    """A progressive JPEG of a megabyte and 49 megapixels that decodes for minutes.

    Each scan says in 60 bytes that nothing changes, and the decoder visits every block of the picture for it.
    """
    blocks = ((side + 7) // 8) ** 2

    def table(kind: int, symbol: int) -> bytes:  # a Huffman table with one code of one bit
        return b"\xff\xc4" + struct.pack(">HB", 20, kind << 4) + bytes([1] + [0] * 15 + [symbol])

    def scan(first: int, last: int, data: bytes) -> bytes:
        return b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, first, last, 0]) + data

    end_of_blocks = "0" + "1" * 14  # the run of 32,767 empty blocks
    bits = end_of_blocks * (blocks // 32767 + 1)
    bits += "1" * (-len(bits) % 8)
    empty = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00")
    head = b"\xff\xd8\xff\xdb\x00\x43\x00" + bytes([1] * 64)
    head += b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\x01\x11\x00" + table(0, 0) + table(1, 0xE0)
    return head + scan(0, 0, bytes((blocks + 7) // 8)) + scan(1, 63, empty) * scans + b"\xff\xd9"


def slow_png(side: int = 7000) -> bytes:
    """An interlaced PNG of 16 bits with alpha, whose rows use the slowest filter: half a megabyte, some seconds."""
    compressor, packed = zlib.compressobj(9), b""
    for left, top, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)):
        packed += _rows(compressor, side, left, top, across, down)
    packed += _rows(compressor, side, 0, 1, 1, 2) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def deep_png(side: int = 7000) -> bytes:
    """A PNG of 16 bits a channel with alpha, transparent throughout: what took most memory a pixel."""
    compressor = zlib.compressobj(9)
    packed = _rows(compressor, side, 0, 0, 1, 1) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def large_webp(side: int = 7000) -> bytes:
    """A WebP of one colour: a few bytes, and 17 bytes a pixel to decode."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def many_chunks(count: int = 700_000) -> bytes:
    """A small PNG in whose middle are so many empty chunks that it has 8 MB."""
    pixels = zlib.compress(bytes(100 * 301))
    header = struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IDAT", b"") * count + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + chunks


def polyglots() -> dict[str, bytes]:
    """Pictures, each of which is something else too."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.html", _SCRIPT)
    png = encoded("PNG")
    return {
        "html behind a png": png + _SCRIPT,
        "html in a text of a png": png.replace(_PNG_END, _chunk(b"tEXt", b"Comment\0" + _SCRIPT) + _PNG_END),
        "archive behind a jpeg": encoded("JPEG") + archive.getvalue(),
        "html in a comment of a jpeg": encoded("JPEG", comment=_SCRIPT),
        "html behind a webp": encoded("WEBP") + _SCRIPT,
    }


def multipart(data: bytes, *, filename: str = "a", content_type: str = "image/png") -> bytes:
    """A body with one file, its boundary is ``x``."""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: {content_type}'
    return head.encode() + b"\r\n\r\n" + data + b"\r\n--x--\r\n"


def memory_peak_mb(pid: int) -> float:
    """The most memory that a process had since it began, or since ``forget_memory_peak``; Linux."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def forget_memory_peak(pid: int) -> None:
    """Let a process's peak begin anew; Linux."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _rows(compressor: zlib._Compress, side: int, left: int, top: int, across: int, down: int) -> bytes:
    """Rows of one pass of a picture of 16-bit RGBA zeros, each with the Paeth filter."""
    row = b"\4" + bytes(-(-(side - left) // across) * 8)
    return b"".join(compressor.compress(row) for _ in range(-(-(side - top) // down)))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

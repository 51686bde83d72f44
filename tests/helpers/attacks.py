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


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

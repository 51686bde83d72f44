"""Describe files that cannot be read as images by their first bytes."""

from __future__ import annotations

import re

_LEADING_BYTES = (
    (b"%PDF", "a PDF document; export its pages as PNG first"),
    (b"%!PS", "a PostScript file; export it as PNG first (PostScript is a program, and is not run)"),
    (
        b"\xc5\xd0\xd3\xc6",
        "a PostScript file; export it as PNG first (PostScript is a program, and is not run)",
    ),
    (b"PK\x03\x04", "a ZIP archive (or an office document); unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video; extract a frame first"),
    (b"OggS", "an Ogg sound or video file"),
    (b"ID3", "an MP3 sound file"),
    (b"FLV", "a Flash video; extract a frame first"),
    (b"\x00\x00\x01\xba", "an MPEG video; extract a frame first"),
    (b"\x00\x00\x01\xb3", "an MPEG video; extract a frame first"),
    (b"\xff\x0a", "a JPEG XL picture, which cannot be read here; convert it to PNG or JPEG"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture, which cannot be read here; convert it to PNG or JPEG"),
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself; run `git lfs pull`"),
    (b"\x93NUMPY", "a numpy file; load it with numpy.load and pass the array"),
    (b"FUJIFILM", "a camera's raw picture (RAF); develop it to JPEG or TIFF first"),
    (b"IIU\0", "a camera's raw picture (RW2); develop it to JPEG or TIFF first"),
    (b"IIRO", "a camera's raw picture (ORF); develop it to JPEG or TIFF first"),
    (b"IIRS", "a camera's raw picture (ORF); develop it to JPEG or TIFF first"),
    (b"MMOR", "a camera's raw picture (ORF); develop it to JPEG or TIFF first"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
)
_BASE64 = (b"iVBORw0KGgo", b"/9j/", b"UklGR", b"R0lGOD")  # how PNG, JPEG, WebP and GIF begin in base64
_PATH = re.compile(rb"[^\n]{1,250}\.(?:png|jpe?g|webp|tiff?|gif|bmp|heic|avif)")
HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
)
"""Brands of the ISO container that HEIC and HEIF pictures begin with."""

_BRANDS = {
    **dict.fromkeys(
        HEIF_BRANDS, "a HEIC picture, which needs pillow-heif: pip install 's3seg[heic]', or convert it to JPEG or PNG"
    ),
    b"avif": "an AVIF picture, which this build of Pillow cannot read; convert it to PNG or JPEG",
    b"crx ": "a camera's raw picture (CR3); develop it to JPEG or TIFF first",
}


def is_heif(head: bytes) -> bool:
    """Return whether a file starts like a HEIC or HEIF picture; AVIF in the same container is not one."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head[16:64]


def is_cr2(head: bytes) -> bool:
    """Return whether a file starts like a camera's raw picture of Canon, which Pillow takes for a TIFF."""
    return head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR"


def looks_like(head: bytes) -> str:
    """Describe a file that was not recognised as an image, with advice.

    Args:
        head: The first bytes of the file, a few hundred.

    Returns:
        Words to follow "it looks like".
    """
    for leading, words in _LEADING_BYTES:
        if head.startswith(leading):
            return words
    if is_cr2(head):
        return "a camera's raw picture (CR2); develop it to JPEG or TIFF first"
    if head[128:132] == b"DICM":
        return "a DICOM file; read it with pydicom, and pass its pixels as an array of 8 bits"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video (MP4 or MOV); extract a frame first")
    if head.startswith(b"RIFF"):
        return {b"AVI ": "an AVI video; extract a frame first", b"WAVE": "a WAV sound file"}.get(
            head[8:12], "a damaged WebP or another RIFF file"
        )
    if not head.strip(b"\x00"):
        return "a file of zeros; it was never written, or recovered from a damaged disk"
    return _looks_like_text(head) or "an unknown file beginning with " + head[:8].hex(" ")


def _looks_like_text(head: bytes) -> str | None:
    if b"\x00" in head:
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(_BASE64):
        return "a picture as base64 text; decode it first: base64.b64decode(...)"
    text = text.lower()
    if b"<svg" in text:
        return "an SVG drawing; render it to PNG first"
    if text.startswith((b"<!doctype html", b"<html")) or b"<head" in text or b"<body" in text:
        return "an HTML page; pass the address of the picture itself"
    if text.startswith(b"<"):
        return "an XML file"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    if text.startswith(b"data:"):
        return "a data: URL in a file; pass its text as a string, or decode its base64"
    if _PATH.fullmatch(text):
        return "the path of a file, as bytes; pass it as text: os.fsdecode(...)"
    try:
        words = head[:24].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return f"text beginning with {words!r}" if words.isprintable() or words.split() else None

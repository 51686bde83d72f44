"""Say in words what bytes that are not a readable image look like."""

from __future__ import annotations

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
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
)
_BRANDS = {
    b"heic": "a HEIC picture (as iPhones take); convert it to JPEG or PNG, or register pillow-heif",
    b"heix": "a HEIC picture (as iPhones take); convert it to JPEG or PNG, or register pillow-heif",
    b"mif1": "a HEIF picture; convert it to JPEG or PNG, or register pillow-heif",
    b"avif": "an AVIF picture, which this build of Pillow cannot read; convert it to PNG or JPEG",
    b"crx ": "a camera's raw picture (CR3); develop it to JPEG or TIFF first",
}


def looks_like(head: bytes) -> str:
    """Describe the beginning of a file that could not be identified as an image.

    Args:
        head: The first bytes, some hundreds of them.

    Returns:
        Words that fit after "it looks like".
    """
    for leading, words in _LEADING_BYTES:
        if head.startswith(leading):
            return words
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video (MP4 or MOV); extract a frame first")
    if head.startswith(b"RIFF"):
        return {b"AVI ": "an AVI video; extract a frame first", b"WAVE": "a WAV sound file"}.get(
            head[8:12], "a damaged WebP or another RIFF file"
        )
    if not head.strip(b"\x00"):
        return "a file of zeros; was it never written, or recovered from a broken disk?"
    return _looks_like_text(head) or "an unknown file beginning with " + head[:8].hex(" ")


def _looks_like_text(head: bytes) -> str | None:
    if b"\x00" in head:
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "an SVG drawing; render it to PNG first"
    if text.startswith((b"<!doctype html", b"<html")) or b"<head" in text or b"<body" in text:
        return "an HTML page; does the link lead to a page around the picture?"
    if text.startswith(b"<"):
        return "an XML file"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    if text.startswith(b"data:"):
        return "a data: URL; decode its base64 and pass the bytes"
    try:
        words = head[:24].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return f"text beginning with {words!r}" if words.isprintable() or words.split() else None

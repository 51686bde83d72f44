"""Name the format of a file that the service does not accept, by its first bytes."""

from __future__ import annotations

_SIGNATURES = (
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF or camera raw picture"),
    (b"MM\0*", "a TIFF or camera raw picture"),
    (b"II+\0", "a TIFF picture"),
    (b"MM\0+", "a TIFF picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"8BPS", "a Photoshop file"),
    (b"gimp xcf", "a GIMP file"),
    (b"v/1\1", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"qoif", "a QOI picture"),
    (b"DDS ", "a DDS texture"),
    (b"FUJIFILM", "a camera raw picture"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a damaged PNG picture"),  # its line breaks were changed, as in a transfer as text
    (b"data:", "a data: URL as text"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    b"crx ": "a camera raw picture",
}
_BASE64 = (b"iVBORw0KGgo", b"/9j/", b"UklGR")  # how PNG, JPEG and WebP begin in base64


def not_accepted(data: bytes) -> str:
    """Return the reason for refusing a file: what it is, and what to send instead.

    Args:
        data: The file, or its first bytes.
    """
    head = data[:256]
    name = _name(head)
    refusal = "not a PNG, JPEG or WebP picture"
    return refusal if name is None else f"{refusal}, but {name}; {_remedy(name)}"


def _name(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        compatible = head[8:64]
        if head[8:12] in (b"mif1", b"msf1") and b"avif" in compatible:
            return "an AVIF picture"
        return _BRANDS.get(head[8:12], "a video (MP4 or MOV)")
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head.startswith(b"RIFF"):
        return "an AVI video" if head[8:12] == b"AVI " else "a RIFF file other than WebP"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(_BASE64):
        return "a picture as base64 text"
    lower = text.lower()
    if b"<svg" in lower:
        return "an SVG drawing"
    if lower.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "a JSON document" if lower.startswith((b'{"', b"{\n", b"[{")) else None


def _remedy(name: str) -> str:
    if "HEIC" in name:
        return 'convert it to JPEG first, or set the camera of the phone to "most compatible"'
    if "text" in name:
        return "decode it first, and send the bytes"
    if "video" in name:
        return "extract a frame first"
    if "archive" in name:
        return "unpack it first"
    if "page" in name or "JSON" in name:
        return "send the bytes of the picture itself"
    if "document" in name or "drawing" in name:
        return "export it as PNG first"
    return "convert it to PNG or JPEG first"

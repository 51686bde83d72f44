"""What the header of a file says that Pillow does not: bits per channel, ignored bands, unsupported kinds."""

from __future__ import annotations

from typing import IO

from PIL import Image, TiffImagePlugin

_HEAD = 65536  # bytes of a file in which the header is searched

# Tags of TIFF 6.0
_SUBFILE_TYPE, _WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 258, 259, 262
_STRIPS, _ROWS_PER_STRIP, _SAMPLES, _PLANAR, _TILES, _SUB_IFDS, _SAMPLE_FORMAT = 273, 278, 277, 284, 324, 330, 339
_COLOURS = {
    0: "white-is-zero grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "LAB",
    32803: "raw sensor data",
}
_COMPRESSIONS = {
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_SINGLE_BAND = ("1", "L", "P", "I", "F", "I;16", "I;16B", "I;16L")


def bits_per_channel(picture: Image.Image, stream: IO[bytes] | None) -> int:
    """Return the bits of a stored channel if it has more than 8, else 8.

    Pillow keeps 8 bits of a channel in colour pictures, and says so nowhere.

    Args:
        picture: Opened, and not yet loaded.
        stream: The file; without it the depth of AVIF, HEIC and JPEG 2000 is not known.
    """
    if picture.mode == "I" or (picture.mode.startswith("I") and picture.format != "TIFF"):
        return 16
    if picture.format == "TIFF":
        return max(8, *_numbers(_tag(picture, _BITS, (8,))))
    tiles = getattr(picture, "tile", ())
    if picture.format in ("PNG", "SGI"):
        return 16 if any(";16" in str(tile[3]) or tile[0] == "SGI16" for tile in tiles) else 8
    if picture.format == "PPM":
        maximum = max((tile[3][1] for tile in tiles if isinstance(tile[3], tuple)), default=255)
        return max(8, int(maximum).bit_length())
    if picture.format == "HEIF":
        return max(8, int(picture.info.get("bit_depth", 8)))
    if stream is None or picture.format not in ("JPEG2000", "AVIF"):
        return 8
    stream.seek(0)
    head = stream.read(_HEAD)
    if picture.format == "AVIF":
        at = head.find(b"av1C")
        flags = head[at + 6] if 0 <= at < len(head) - 6 else 0
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    at = head.find(b"\xff\x4f\xff\x51")
    if not 0 <= at < len(head) - 42:
        return 8
    return max(8, (head[at + 42] & 0x7F) + 1)


def ignored_bands(picture: Image.Image) -> int:
    """Return how many bands of a TIFF Pillow leaves out, such as the near infrared of an aerial picture."""
    if picture.format != "TIFF":
        return 0
    bands = {"RGBX": 3}.get(picture.mode, len(picture.getbands()))
    samples = _numbers(_tag(picture, _SAMPLES, 1))[0]
    return max(0, samples - bands)


def rows_per_strip(picture: Image.Image) -> int:
    """Return the rows of a TIFF that are decoded at once."""
    if _tag(picture, _TILES, None) is not None:
        return min(picture.height, 1024)
    return min(picture.height, max(_numbers(_tag(picture, _ROWS_PER_STRIP, picture.height))))


def is_white_zero(picture: Image.Image) -> bool:
    """Return whether 0 is white in a grey TIFF of more than 8 bits, which Pillow does not invert."""
    return (
        picture.format == "TIFF"
        and picture.mode in ("I;16", "I;16B", "I", "F")
        and _numbers(_tag(picture, _PHOTOMETRIC, 1))[0] == 0
    )


def is_12_bit(picture: Image.Image) -> bool:
    """Return whether a grey TIFF has 12 bits, which Pillow reads as values up to 4095 of 65535."""
    return picture.mode.startswith("I;16") and _numbers(_tag(picture, _BITS, (16,)))[0] == 12


def misread(picture: Image.Image) -> str | None:
    """Return what an opened picture is, if Pillow would read it wrongly without an error; else None."""
    if picture.format != "TIFF":
        return None
    tags = picture.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    if _numbers(tags.get(_SUBFILE_TYPE, 0))[0] & 1 and _SUB_IFDS in tags:
        return "a camera's raw picture, of which only the preview could be read; develop it to JPEG or TIFF"
    bits, samples = max(_numbers(tags.get(_BITS, (1,)))), _numbers(tags.get(_SAMPLES, 1))[0]
    is_separate = _numbers(tags.get(_PLANAR, 1))[0] == 2
    is_raw = any(tile[0] == "raw" for tile in getattr(picture, "tile", ()))
    only_first_band = is_separate and samples > 1 and picture.mode in _SINGLE_BAND
    bytes_as_pixels = is_separate and samples > 1 and bits > 8 and is_raw
    not_inverted = is_separate and is_raw and _numbers(tags.get(_PHOTOMETRIC, 1))[0] == 0
    sign_ignored = 2 in _numbers(tags.get(_SAMPLE_FORMAT, (1,))) and picture.mode == "L"
    if only_first_band or bytes_as_pixels or not_inverted or sign_ignored:
        return _unsupported(_described(tags))
    return None


def unsupported_tiff(stream: IO[bytes]) -> str | None:
    """Return what a TIFF is that Pillow could not open, if its header is intact; None if it is damaged."""
    try:
        stream.seek(0)
        header = stream.read(8)
        if header[2:3] == b"\x2b" or header[3:4] == b"\x2b":  # BigTIFF
            header += stream.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(tags.next)
        tags.load(stream)
        if _WIDTH not in tags or not (_STRIPS in tags or _TILES in tags):
            return None
        return _unsupported(_described(tags))
    except Exception:  # whatever a damaged header leads to
        return None


def rare_compression(picture: Image.Image) -> str | None:
    """Return the compression of a TIFF if not every build of Pillow can read it."""
    if picture.format != "TIFF":
        return None
    return _COMPRESSIONS.get(_numbers(_tag(picture, _COMPRESSION, 1))[0])


def already_turned(picture: Image.Image, orientation: int) -> bool:
    """Return whether a picture has the proportions that its EXIF orientation would give it.

    This is so if a program turned the pixels by 90 degrees and left the tag: EXIF still has the size as stored.
    """
    if orientation < 5:
        return False
    try:
        details = picture.getexif().get_ifd(0x8769)
        width, height = int(details[0xA002]), int(details[0xA003])
    except Exception:  # EXIF without a size, or damaged
        return False
    if width < 1 or height < 1 or width == height:
        return False
    ratio, stored, turned = picture.width / picture.height, width / height, height / width
    return abs(ratio - turned) < 0.02 * turned and abs(ratio - stored) > 0.02 * stored


def _unsupported(description: str) -> str:
    return f"Pillow cannot read this kind of TIFF ({description}); convert it to 8-bit RGB, as PNG, JPEG or TIFF"


def _described(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Describe a TIFF by its tags, such as "32-bit float RGB" or "8 bands of 16 bits, stored separately"."""
    bits = max(_numbers(tags.get(_BITS, (1,))))
    samples = _numbers(tags.get(_SAMPLES, 1))[0]
    number = {2: " signed", 3: " float"}.get(_numbers(tags.get(_SAMPLE_FORMAT, (1,)))[0], "")
    photometric = _numbers(tags.get(_PHOTOMETRIC, 1))[0]
    colour = _COLOURS.get(photometric, f"colour space {photometric}")
    expected = {"RGB": (3, 4), "YCbCr": (3, 4), "LAB": (3, 4), "CMYK": (4, 5)}.get(colour, (1, 2))
    words = [f"{bits}-bit{number} {colour}"] if samples in expected else [f"{samples} bands of {bits} bits{number}"]
    if _numbers(tags.get(_PLANAR, 1))[0] == 2:
        words.append("stored separately")
    compression = _numbers(tags.get(_COMPRESSION, 1))[0]
    if compression not in TiffImagePlugin.COMPRESSION_INFO or compression in _COMPRESSIONS:
        words.append(f"compressed with {_COMPRESSIONS.get(compression, f'method {compression}')}")
    return ", ".join(words)


def _tag(picture: Image.Image, tag: int, default: object) -> object:
    return picture.tag_v2.get(tag, default) if hasattr(picture, "tag_v2") else default  # pyright: ignore[reportAttributeAccessIssue]


def _numbers(value: object) -> tuple[int, ...]:
    """Return the value of a tag as numbers; a damaged tag as 1."""
    values = value if isinstance(value, tuple) else (value,)
    numbers = tuple(one for one in values if isinstance(one, int))
    return numbers or (1,)

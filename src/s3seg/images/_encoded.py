"""Decode image files with Pillow: check the header, decode, and convert to upright RGB.

Memory. The peak is the decoder's buffers plus Pillow's picture, or Pillow's picture plus 3 bytes a pixel of the
result, whichever is more: the conversion works in strips. See ``_memory_needed`` for measured figures.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from s3seg.errors import ImageDecodeError
from s3seg.images import _headers
from s3seg.images._arrays import COMPOSITED, check_float_range, on_white, strips, to_uint8
from s3seg.images._filetypes import is_cr2, is_heif, looks_like
from s3seg.images._loaded import Limits, LoadedImage

UNREAD_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognises but cannot decode by itself, and PostScript, which runs programs."""

_UPRIGHT_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF orientation -> the view of the upright pixels that has the layout of the stored ones."""

_DARK = 32  # of 255: below this, a picture of more than 8 bits is reported as nearly black
_WHITE = 250  # of 255: a picture that has nothing darker shows nothing

_MEMORY = {"WEBP": 18, "AVIF": 16, "JPEG2000": 28, "HEIF": 20}
"""Bytes per pixel that decoders take at their peak, Pillow's picture included."""

_UNSUPPORTED = ("unsupported", "not supported", "not yet supported", "cannot handle", "unknown pixel mode",
                "unknown raw mode", "unrecognized", "unimplemented", "not implemented", "unable to determine",
                "not available", "unknown data organization", "unknown compression")  # fmt: skip
"""Parts of Pillow's messages on intact files that it cannot read."""


def decode(stream: IO[bytes], name: str, *, limits: Limits, reduce_to: int | None = None) -> LoadedImage:
    """Decode an image file from a seekable binary stream; its header is checked first.

    Args:
        stream: The file, at its beginning.
        name: Name of the file in messages.
        limits: The largest picture to read, before any reduction.
        reduce_to: As for `s3seg.images.load`.

    Raises:
        ImageDecodeError: Empty, not an image, unsupported, too large, truncated or damaged.
    """
    head = stream.read(512)
    if not head:
        raise ImageDecodeError(f"{name}: the file is empty")
    try:
        picture = _open(stream, head, name)
    except ImageDecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageDecodeError(f"{name}: too large: {err}") from err
    except UnidentifiedImageError:
        raise ImageDecodeError(f"{name}: not an image that can be read: it looks like {looks_like(head)}") from None
    except Exception as err:
        raise ImageDecodeError(f"{name}: {_reason(err)}") from err
    with picture:
        limits.check_size(*picture.size, name)
        stored = picture.size
        if reduce_to is not None and picture.format == "JPEG":  # other formats cannot be decoded at a reduced size
            picture.draft(None, (reduce_to, reduce_to))
        loaded = rgb_from_pil(picture, name, limits=limits, stream=stream)
        _check_complete(picture, stream, name)
        if reduce_to is None or picture.format != "JPEG" or picture.size == stored:
            return loaded
        turned = _orientation(picture) >= 5
        return replace(loaded, reduced_from=stored if turned else stored[::-1])


def rgb_from_pil(picture: Image.Image, name: str, *, limits: Limits, stream: IO[bytes] | None = None) -> LoadedImage:
    """Convert a PIL picture to upright RGB pixels; ``picture`` itself is not changed.

    Args:
        picture: A picture, in any mode, opened from a file or made by a program.
        name: Name of the picture in messages.
        limits: The largest picture to convert.
        stream: The file of the picture, if it has just been opened.

    Raises:
        ImageDecodeError: No pixels, too many, truncated, or in a mode that is not that of a picture.
    """
    limits.check_size(*picture.size, name)
    if (problem := _headers.misread(picture)) is not None:
        raise ImageDecodeError(f"{name}: {problem}")
    if stream is not None or getattr(picture, "tile", None):  # not decoded yet
        limits.check_memory(_memory_needed(picture), name, picture.format or picture.mode)
    stored_format, bits = picture.format, _headers.bits_per_channel(picture, stream)
    orientation = _orientation(picture)  # this decodes a PNG
    frames = _frames(picture)
    stored_mode = f"{picture.mode};{bits}" if bits > 8 and picture.mode[0] not in "IF" else picture.mode
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as err:
        raise ImageDecodeError(f"{name}: {_reason(err, picture)}") from err
    limits.check_size(*picture.size, name)  # an icon can have another size than its header says

    steps = ["first frame of several taken"] if frames else []
    notes = [frames] if frames else []
    if bands := _headers.ignored_bands(picture):
        notes.append(
            f"{bands} extra {'band was' if bands == 1 else 'bands were'} ignored, only {picture.mode} was read"
        )
    still_to_turn = _orientation(picture)  # a TIFF is turned by Pillow while it is loaded
    if _headers.already_turned(picture, orientation):
        if isinstance(picture, ImageFile.ImageFile):
            notes.append(f"EXIF orientation {orientation} was applied, but the pixels seem to be turned already")
        else:  # a program turned it with Pillow, which keeps the tag
            notes.append(f"EXIF orientation {orientation} was not applied, the pixels are turned already")
            orientation = still_to_turn = 1
    if orientation in _UPRIGHT_AS_STORED:
        steps.append(f"EXIF orientation {orientation} applied")
    try:
        pixels, converted = _to_rgb(picture, still_to_turn, name)
    except ImageDecodeError:
        raise
    except (ValueError, OSError, OverflowError) as err:
        raise ImageDecodeError(f"{name}: pictures of mode {stored_mode} cannot be converted: {err}") from err
    if bits > 8 and picture.mode[0] not in "IF":
        converted = (f"{bits} bit scaled to 8 bit", *converted)
    return LoadedImage(
        pixels=pixels,
        source=None,
        format=stored_format,
        mode=stored_mode,
        steps=(*steps, *converted),
        notes=(*notes, *depth_notes(pixels, bits), *transparency_notes(pixels, converted)),
    )


def depth_notes(pixels: npt.NDArray[np.uint8], bits: int) -> tuple[str, ...]:
    """Return the notes on a picture that had ``bits`` bits per channel."""
    if bits <= 8:
        return ()
    scaled = f"{bits} bits per channel were scaled to 8"
    brightest = int(pixels.max())
    if brightest >= _DARK:
        return (scaled,)
    return (
        scaled,
        f"the picture is nearly black, its brightest value is {brightest} of 255: "
        f"if its values do not use all {bits} bits, scale them to the full range first",
    )


def transparency_notes(pixels: npt.NDArray[np.uint8], steps: Iterable[str]) -> tuple[str, ...]:
    """Return the note on a picture of which nothing is left, such as a white sign without a background."""
    if COMPOSITED not in steps or pixels.min() < _WHITE:
        return ()
    return (
        "the picture is entirely white, because all that is opaque in it is white too; put it on a dark background",
    )


def _open(stream: IO[bytes], head: bytes, name: str) -> Image.Image:
    """Open a file like ``Image.open``, but without its limit of pixels.

    That limit is a global variable, with a warning below it: it cannot be set for one call without affecting other
    threads. Here only the header is read, and the caller checks the size.
    """
    if is_heif(head):
        if (heif := _open_heif(stream)) is not None:
            return heif
        if "HEIF" not in Image.OPEN:  # no other plugin either
            raise UnidentifiedImageError
    if is_cr2(head):
        raise UnidentifiedImageError
    tried: set[str] = set()
    begun: list[tuple[str, Exception]] = []  # formats that recognise the first bytes
    for register_plugins in (Image.preinit, Image.init):  # the five common formats, then all
        register_plugins()
        for format_name in [known for known in Image.ID if known not in tried]:
            tried.add(format_name)
            factory, accepts = Image.OPEN[format_name]
            if accepts is not None and accepts(head[:16]) is not True:  # a str says why it is not accepted
                continue
            if format_name in UNREAD_FORMATS:
                raise UnidentifiedImageError
            stream.seek(0)
            try:
                return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, KeyError, struct.error, NotImplementedError) as err:
                if accepts is not None:
                    begun.append((format_name, err))
            except OSError as err:
                if not _is_unsupported(err):
                    raise
                begun.append((format_name, err))
    if not begun:
        raise UnidentifiedImageError
    format_name, err = begun[0]
    if format_name == "TIFF" and (kind := _headers.unsupported_tiff(stream)):
        raise ImageDecodeError(f"{name}: {kind}")
    if _is_unsupported(err):
        raise ImageDecodeError(
            f"{name}: Pillow cannot read this kind of {format_name} ({err}); convert it to 8-bit RGB, as PNG or JPEG"
        )
    raise SyntaxError(f"it begins like a {format_name} file, but what follows is damaged or cut off")


def _open_heif(stream: IO[bytes]) -> Image.Image | None:
    """Open a HEIC picture with pillow-heif; None if that is not installed, or cannot read it."""
    try:
        from pillow_heif import HeifImageFile  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    stream.seek(0)
    try:
        return HeifImageFile(stream, "")
    except SyntaxError as err:
        raise SyntaxError(f"it begins like a HEIC file, but what follows is damaged or cut off ({err})") from err


def _memory_needed(picture: Image.Image) -> int:
    """Estimate the peak of memory, in bytes, to decode and convert an opened picture.

    Peak of resident memory during `s3seg.images.load`, less that before it, in bytes per pixel, measured with
    ``tests/images/measure_memory.py`` on Linux with Pillow 13 (16 megapixels of noise, JPEG 2000: 4):

    - PNG: 4.3 grey, 5.4 16-bit grey, 7.3 RGB, 8.1 RGBA and 16-bit RGBA (converted in one piece: 20)
    - JPEG: 7.3 RGB, also if turned by EXIF, 9.6 progressive
    - WebP: 16.8 RGB, 17.8 RGBA; AVIF: 10.5 RGB, 13.4 RGBA; JPEG 2000: 21.2 RGB, 27.3 RGBA
    - TIFF: 7.6 float grey and turned RGB, 8.1 16-bit RGBA, 18.5 the same in one compressed strip
    """
    pixels = picture.width * picture.height
    bits = _headers.bits_per_channel(picture, None)
    picture_bytes = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(picture.mode, 4)
    decoder_bytes = _MEMORY.get(picture.format or "", picture_bytes)
    if picture.format in ("JPEG", "MPO") and picture.info.get("progressive"):
        # its decoder holds 2 bytes for each stored coefficient
        scale = (getattr(picture, "decoderconfig", ()) or (1,))[0]
        decoder_bytes += scale**2 * len(picture.getbands()) * 2
    strip = 0
    if picture.format == "TIFF":  # a strip is held as stored and decoded; Pillow turns a picture by copying it
        strip = 2 * picture.width * _headers.rows_per_strip(picture) * len(picture.getbands()) * -(-bits // 8)
        decoder_bytes *= 2 if _orientation(picture) in _UPRIGHT_AS_STORED else 1
    return max(pixels * decoder_bytes + strip, pixels * (picture_bytes + 3))


def _to_rgb(picture: Image.Image, orientation: int, name: str) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Convert a loaded picture strip by strip; return upright pixels and the conversions that were made."""
    width, height = picture.size
    pixels = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    as_stored = _UPRIGHT_AS_STORED.get(orientation, lambda upright: upright)(pixels)
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return pixels, _write_numbers(picture, as_stored, name)
    has_alpha = picture.has_transparency_data
    colour_key = picture.info.get("transparency")
    is_transparent = False
    for rows in strips(height):
        strip = picture.crop((0, rows.start, width, rows.stop))
        if not has_alpha:
            as_stored[rows] = np.asarray(strip if mode == "RGB" else strip.convert("RGB"))
            continue
        if isinstance(colour_key, tuple) and max(colour_key) > 255:  # of a 16-bit PNG, whose pixels have 8 bits now
            strip.info["transparency"] = tuple(value >> 8 for value in colour_key)
        rgba = (strip.convert("LA") if mode == "La" else strip).convert("RGBA")
        as_stored[rows], found = on_white(rgba)
        is_transparent |= found
    steps = () if mode in ("RGB", "RGBA") else (f"{mode} converted to RGB",)
    return pixels, (*steps, COMPOSITED) if is_transparent else steps


def _write_numbers(picture: Image.Image, target: npt.NDArray[np.uint8], name: str) -> tuple[str, ...]:
    """Write the grey values of a picture of 16-bit integers or floats to RGB pixels of the same layout."""
    width, height = picture.size

    def values(rows: slice) -> np.ndarray:
        return np.asarray(picture.crop((0, rows.start, width, rows.stop)))

    extremes = [(part.min(), part.max()) for part in map(values, strips(height))]
    low, high = min(one for one, _ in extremes), max(one for _, one in extremes)
    if np.isnan([float(one) for pair in extremes for one in pair]).any():
        low = high = np.nan
    is_float = picture.mode == "F"
    if is_float:
        check_float_range(float(low), float(high), name)
    elif low < 0 or high > 65535:
        raise ImageDecodeError(
            f"{name}: its integers range from {low} to {high}, beyond 16 bits; save it with 8 or 16 bits per channel"
        )
    white_is_zero = _headers.is_white_zero(picture)
    white = 1 if is_float else 65535
    is_12_bit = not is_float and _headers.is_12_bit(picture)
    transparent = None if is_float else picture.info.get("transparency")
    is_transparent = False
    for rows in strips(height):
        part = values(rows) if is_float else values(rows).astype(np.uint16)
        if is_12_bit:
            part = ((part.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
        if white_is_zero:
            part = white - part
        if isinstance(transparent, int):  # the grey value that a PNG declares transparent
            is_transparent |= bool((part == transparent).any())
            part = np.where(part == transparent, np.uint16(white), part)
        target[rows] = to_uint8(part)[:, :, None]
    steps = ("0..1 scaled to 0..255" if is_float else "16 bit scaled to 8 bit", "grey repeated to RGB")
    return (*steps, COMPOSITED) if is_transparent else steps


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata of an intact picture
        return 1


def _frames(picture: Image.Image) -> str | None:
    """Return a note if the file has other pages or frames; None if it has one picture.

    The other pictures of an MPO are previews and gain maps, those of a PSD its layers.
    """
    if picture.format in ("MPO", "PSD"):
        return None
    word = "page" if picture.format in ("TIFF", "DCX") else "frame"
    try:
        if not getattr(picture, "is_animated", False):
            return None
        count = int(getattr(picture, "n_frames", 0))
        if picture.format == "HEIF":
            return f"only the primary picture of {count} was read"
        if picture.tell():  # chosen by the caller
            return None
    except Exception:  # a later frame is damaged
        return f"only the first {word} of several was read"
    return f"only {word} 1 of {count} was read"


def _check_complete(picture: Image.Image, stream: IO[bytes], name: str) -> None:
    """Raise an error for truncated files that Pillow accepts.

    It accepts a JPEG 2000 that ends right after its header; and if a program has set the global
    ``LOAD_TRUNCATED_IMAGES``, it fills the missing part of a JPEG or PNG with grey.
    """
    end_marker = {"JPEG2000": b"\xff\xd9"}  # these bytes occur nowhere else in a JPEG 2000
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        end_marker["PNG"] = b"IEND"
    is_cut = getattr(picture, "_ended", False)  # set if Pillow added the end of a JPEG
    if picture.format in end_marker:
        stream.seek(0)
        is_cut = end_marker[picture.format] not in stream.read()
    if is_cut:
        raise ImageDecodeError(f"{name}: {_reason(OSError('truncated'))}")


def _is_unsupported(err: Exception) -> bool:
    return isinstance(err, NotImplementedError) or any(part in str(err).lower() for part in _UNSUPPORTED)


def _reason(err: Exception, picture: Image.Image | None = None) -> str:
    """Say why a picture cannot be read, from the exception that Pillow raised."""
    message = str(err).strip() or type(err).__name__
    format_name = picture.format if picture and picture.format else "image"
    if isinstance(err, EOFError) or any(part in message.lower() for part in ("truncated", "end of file")):
        return "the file is truncated: its end is missing; copy or download it again"
    if "closed" in message or (
        isinstance(err, AttributeError | AssertionError) and getattr(picture, "fp", True) is None
    ):
        return "its file has been closed; load the picture before closing it"
    if _is_unsupported(err):
        return f"Pillow cannot read this kind of {format_name} ({message}); convert it to 8-bit RGB, as PNG or JPEG"
    if picture is not None and (compression := _headers.rare_compression(picture)):
        return f"the file is damaged, or Pillow cannot read its compression ({compression}): {message}"
    return f"the file is damaged: {message}"

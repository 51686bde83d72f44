"""Open an encoded image with Pillow, check its header, decode it, and make it upright RGB."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from s3seg.errors import ImageDecodeError
from s3seg.images._arrays import flatten_alpha, pixels_of, rgb_from_array
from s3seg.images._filetypes import looks_like
from s3seg.images._loaded import LoadedImage, check_size

UNREAD_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognises but cannot decode by itself, and PostScript, which runs programs."""

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(stream: IO[bytes], name: str, *, max_pixels: int, reduce_to: int | None = None) -> LoadedImage:
    """Decode an encoded image from a seekable binary stream, its header checked first.

    Args:
        stream: Where it begins.
        name: What messages call it.
        max_pixels: Refuse pictures with more, reduced or not.
        reduce_to: See `s3seg.images.load`.

    Raises:
        ImageDecodeError: Empty, not an image, too large, truncated or otherwise broken.
    """
    head = stream.read(512)
    if not head:
        raise ImageDecodeError(f"{name}: the file is empty")
    try:
        picture = _open(stream, head[:16])
    except ImageDecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageDecodeError(f"{name}: too large: {err}") from err
    except UnidentifiedImageError:
        raise ImageDecodeError(f"{name}: not an image: it looks like {looks_like(head)}") from None
    except Exception as err:
        raise ImageDecodeError(f"{name}: {_broken(err)}") from err
    with picture:
        check_size(*picture.size, name, max_pixels=max_pixels)
        stored = picture.size
        if reduce_to is not None and picture.format == "JPEG":  # others cannot
            picture.draft(None, (reduce_to, reduce_to))
        loaded = rgb_from_pil(picture, name, max_pixels=max_pixels)
        _refuse_cut(picture, stream, name)
        if reduce_to is None or picture.format != "JPEG" or picture.size == stored:
            return loaded
        turned = _orientation(picture) >= 5
        return replace(loaded, reduced_from=stored if turned else stored[::-1])


def rgb_from_pil(picture: Image.Image, name: str, *, max_pixels: int) -> LoadedImage:
    """Make upright RGB pixels of a PIL image, opened or made by the user; ``picture`` itself stays as it is.

    Raises:
        ImageDecodeError: No pixels, too many, truncated, or in a mode that has no meaning as a picture.
    """
    check_size(*picture.size, name, max_pixels=max_pixels)
    stored_format, stored_mode = picture.format, picture.mode
    orientation = _orientation(picture)
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as err:
        raise ImageDecodeError(f"{name}: {_broken(err)}") from err
    check_size(*picture.size, name, max_pixels=max_pixels)  # an icon may hold another size than it announces

    steps = ["first frame of several taken"] if _has_more_frames(picture) else []
    upright = picture
    if (transpose := _ORIENTATIONS.get(_orientation(picture))) is not None:  # TIFF turns itself while loading
        upright = picture.transpose(transpose)
    if orientation in _ORIENTATIONS:
        steps.append(f"EXIF orientation {orientation} applied")
    try:
        pixels, converted = _to_rgb(upright, name)
    except ImageDecodeError:
        raise
    except (ValueError, OSError) as err:
        raise ImageDecodeError(f"{name}: pictures of mode {stored_mode} cannot be converted: {err}") from err
    return LoadedImage(pixels=pixels, source=name, format=stored_format, mode=stored_mode, steps=(*steps, *converted))


def _open(stream: IO[bytes], prefix: bytes) -> Image.Image:
    """Do what ``Image.open`` does, without its pixel limit.

    That limit is a global variable, and below it a warning: neither can be set for one call, so that threads
    with other limits would disturb each other. Here the header is read, and the caller checks the size.
    """
    tried: set[str] = set()
    begun: list[str] = []  # formats whose first bytes fit
    for register_plugins in (Image.preinit, Image.init):  # the five common formats, then all
        register_plugins()
        for format_name in [known for known in Image.ID if known not in tried]:
            tried.add(format_name)
            factory, accepts = Image.OPEN[format_name]
            if accepts is not None and accepts(prefix) is not True:  # a str says why it cannot
                continue
            if format_name in UNREAD_FORMATS:
                raise UnidentifiedImageError
            stream.seek(0)
            try:
                return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                if accepts is not None:
                    begun.append(format_name)
    if begun:
        raise SyntaxError(f"it begins like a {begun[0]} file, but what follows is damaged or cut off")
    raise UnidentifiedImageError


def _to_rgb(picture: Image.Image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    mode = picture.mode
    if mode == "RGB" and not picture.has_transparency_data:
        return pixels_of(picture), ()
    if mode.startswith("I"):
        return rgb_from_array(_sixteen_bit(picture, name), name)
    if mode == "F":
        return rgb_from_array(np.asarray(picture), name)
    if picture.has_transparency_data:
        if mode == "La":
            picture = picture.convert("LA")
        flat, steps = flatten_alpha(picture.convert("RGBA"))
        return pixels_of(flat), steps if mode == "RGBA" else (f"{mode} converted to RGB", *steps)
    return pixels_of(picture.convert("RGB")), (f"{mode} converted to RGB",)


def _sixteen_bit(picture: Image.Image, name: str) -> np.ndarray:
    """Values of an integer picture as uint16; Pillow keeps some 16-bit files in 32-bit integers."""
    values = np.asarray(picture)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageDecodeError(
            f"{name}: its integers go from {low} to {high}, beyond 16 bits; save it with 8 or 16 bits a channel"
        )
    return values.astype(np.uint16)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata must not lose a good picture
        return 1


def _has_more_frames(picture: Image.Image) -> bool:
    """Whether frames are left out. The further pictures of MPO are previews and gain maps, not frames."""
    try:
        return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except Exception:  # the first frame is fine, and only the first is asked for
        return True


def _refuse_cut(picture: Image.Image, stream: IO[bytes], name: str) -> None:
    """Refuse a cut file where Pillow does not.

    It accepts a JPEG 2000 that was cut right behind its header; and a program may have told it, by the global
    ``LOAD_TRUNCATED_IMAGES``, to fill what is missing of a JPEG or PNG with grey.
    """
    end_marker = {"JPEG2000": b"\xff\xd9"}  # no other place of a JPEG 2000 can hold these bytes
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        end_marker["PNG"] = b"IEND"
    cut = getattr(picture, "_ended", False)  # set where Pillow invents the end of a JPEG
    if picture.format in end_marker:
        stream.seek(0)
        cut = end_marker[picture.format] not in stream.read()
    if cut:
        raise ImageDecodeError(f"{name}: {_broken(OSError('truncated'))}")


def _broken(err: Exception) -> str:
    reason = _reason(err)
    if "truncated" in reason.lower() or isinstance(err, EOFError):
        return "the file is truncated: its end is missing; copy or download it again"
    return f"the file is damaged: {reason}"


def _reason(err: Exception) -> str:
    return str(err) or type(err).__name__

"""Load pictures from any source (path, URL, bytes, file object, PIL, numpy, torch) as upright 8-bit RGB.

:func:`load` is the one way from a source to pixels: everything that shows or measures a picture beside a result
uses it, so that all agree on orientation, transparency and depth. ``_streams`` and ``_download`` read bytes,
``_encoded`` decodes them, ``_headers`` reads what Pillow does not tell, ``_arrays`` converts arrays, and
``_filetypes`` describes files that are not images. Pillow's global settings are not changed.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from s3seg.errors import ImageDecodeError
from s3seg.images import _streams
from s3seg.images._arrays import as_array, is_array, rgb_from_array
from s3seg.images._download import download, is_url, without_credentials
from s3seg.images._encoded import decode, depth_notes, rgb_from_pil, transparency_notes
from s3seg.images._loaded import MAX_MEMORY, MAX_PIXELS, Limits, LoadedImage

__all__ = [
    "MAX_BYTES",
    "MAX_MEMORY",
    "MAX_PIXELS",
    "ImageSource",
    "LoadedImage",
    "is_named",
    "is_url",
    "load",
    "may_change",
    "of_result",
    "read_bytes",
    "without_credentials",
]

ImageSource = Any
"""str | os.PathLike | bytes | file object | PIL picture | numpy array | torch tensor | LoadedImage, or (name, one)."""

MAX_BYTES = 512 * 2**20
"""Most bytes read from a URL or a stream by default: an uncompressed RGB picture of ``MAX_PIXELS`` fits."""


def load(
    source: ImageSource,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    max_memory: int = MAX_MEMORY,
    timeout: float = 30.0,
    reduce_to: int | None = None,
    bgr: bool = False,
) -> LoadedImage:
    """Load a picture from any source as upright RGB.

    These conversions are made, in this order, and listed in ``LoadedImage.steps``: the first page or frame of a
    file is taken; the EXIF orientation is applied; values of more than 8 bits are scaled to 8 (the full range, with
    no stretching: a 12-bit scan stored in 16 bits stays dark); transparency is composited on white; grey, palette,
    CMYK, YCbCr, LAB and HSV become RGB. Colour profiles are ignored, as in SAM 3's own preprocessing. What is lost
    or left out (bits, pages, extra bands) is listed in ``LoadedImage.notes``, in words for the user.

    Sources, and the ``LoadedImage.source`` that they get unless ``name`` is given. It is None, or names one
    picture only:

    - a path (str, ``os.PathLike`` such as ``Path`` and ``os.DirEntry``): the path as given;
    - an http(s) URL: the URL without password and fragment; a ``data:`` URL: None;
    - bytes, bytearray, memoryview: None;
    - a binary file object: its ``name`` if it is text, else None. It is read from its position to its end; if that
      is not a picture (as at the end of a buffer that has just been written), it is read from its beginning. Upload
      objects of web frameworks are read through their synchronous ``file``, and have None;
    - an object with ``read_bytes``, such as ``zipfile.Path``: ``str(source)``;
    - a PIL picture: its ``filename`` if it was opened from one, with "#frame=N" for a later frame (from 0); else
      None;
    - an array or tensor: None. Arrays are ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` with the
      channels last, in RGB(A) order; uint8, uint16, bool, or floats in 0..1. Tensors may have the channels first:
      the axis of size 1, 3 or 4 is taken, and if both the first and the last could be, that is an error;
    - a pair (name, source) of a text and any of these but a string: the name.

    A picture that was turned with PIL (``rotate``, ``transpose``) keeps the EXIF orientation of its file. It is not
    turned again if the size in its EXIF data shows that it was turned by 90 degrees.

    Args:
        source: The picture. A string is opened as a path or URL, so do not pass strings of untrusted users.
        name: Name of the picture in messages and results.
        max_pixels: Refuse pictures with more pixels, before they are decoded.
        max_bytes: Refuse longer downloads and streams.
        max_memory: Refuse files whose decoding is estimated to take more memory, in bytes, before they are decoded.
        timeout: Seconds to wait for a server to connect, and for each part of its response.
        reduce_to: Allow a large JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, several times faster, as long as
            both sides have at least this many pixels. ``LoadedImage.full_size`` is the true size.
        bgr: The channels of an array are in BGR(A) order, as OpenCV reads them; refused for other sources.

    Returns:
        The picture; its pixels are not shared with the source.

    Raises:
        ImageDecodeError: It cannot be read; the message names it and says why.
    """
    if is_named(source):
        own_name, source = source
        name = name or own_name
    if isinstance(source, LoadedImage) and not bgr:
        return source if name is None else replace(source, source=name)
    if bgr and (isinstance(source, Image.Image | LoadedImage) or not is_array(source)):
        kind = _with_article(type(source).__name__)
        raise ImageDecodeError(f"{name or kind}: bgr=True is for arrays and tensors; the channels of others are known")
    limits = Limits(pixels=max_pixels, bytes=max_bytes, memory=max_memory)
    loaded, own_name = _load(source, name, limits, timeout, reduce_to)
    if bgr:
        pixels = np.ascontiguousarray(loaded.pixels[:, :, ::-1])
        loaded = replace(loaded, pixels=pixels, steps=(*loaded.steps, "BGR turned into RGB"))
    return replace(loaded, source=name or own_name)


def is_named(source: object) -> bool:
    """Return whether a source is a pair of a name and another source."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    return isinstance(source[0], str) and not isinstance(source[1], str)


def may_change(source: object) -> bool:
    """Return whether a source may become another picture when the next one is asked for.

    A PIL picture does when its frames are iterated over, an array when a camera fills it again, and a file object when
    it is read on; a path or bytes do not.
    """
    one = source[1] if isinstance(source, tuple) and is_named(source) else source
    return not isinstance(one, str | os.PathLike | bytes | LoadedImage)


def of_result(pixels: np.ndarray) -> LoadedImage:
    """Return the picture that a result holds, as `load` takes it without another check: it was loaded before.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """
    return LoadedImage(pixels, None, None, "RGB")


def read_bytes(source: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, timeout: float = 30.0) -> bytes:
    """Read the content of a path or an http(s) URL, for callers that need the bytes of a picture and the picture.

    Args:
        source: The path or URL.
        max_bytes: Refuse longer files.
        timeout: Seconds to wait for a server to connect, and for each part of its response.

    Raises:
        ImageDecodeError: It cannot be read, with the message that `load` would give.
    """
    if is_url(source):
        return download(str(source), without_credentials(str(source)), max_bytes=max_bytes, timeout=timeout)
    path = os.fsdecode(source)
    with _streams.opened(path, path, max_bytes=max_bytes) as file:
        return _streams.read_all(file, path, max_bytes=max_bytes)


def _load(
    source: Any, name: str | None, limits: Limits, timeout: float, reduce_to: int | None
) -> tuple[LoadedImage, str | None]:
    """Return the picture, and the name that the source has of its own."""
    if isinstance(source, Image.Image):
        own_name = _name_of_pil(source)
        return rgb_from_pil(source, name or own_name or "PIL image", limits=limits), own_name
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode_bytes(source, name or f"{len(source)} bytes", limits, reduce_to), None
    if _streams.is_data_url(source):
        content = _streams.decode_data_url(source, name or "data: URL", max_bytes=limits.bytes)
        return _decode_bytes(content, name or "data: URL", limits, reduce_to), None
    if is_url(source):
        own_name = without_credentials(source)
        content = download(source, name or own_name, max_bytes=limits.bytes, timeout=timeout)
        return _decode_bytes(content, name or own_name, limits, reduce_to), own_name
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        short_name = name or (path if len(path) <= 300 else f"{path[:300]}...")
        with _streams.opened(path, short_name, max_bytes=limits.bytes) as file:
            return decode(file, short_name, limits=limits, reduce_to=reduce_to), path
    if (body := _streams.body_of(source)) is not None:
        return _decode_bytes(body, name or type(source).__name__, limits, reduce_to), None
    if (stream := _streams.file_object(source)) is not None:
        own_name = _streams.name_of(source)
        label = name or own_name or str(getattr(source, "filename", "") or "") or "file object"
        return _decode_stream(stream, label, limits, reduce_to), own_name
    if is_array(source):
        array, label = as_array(source, name)
        if array.ndim >= 2:
            limits.check_size(array.shape[1], array.shape[0], label)
        pixels, steps, bits = rgb_from_array(array, label)
        notes = (*depth_notes(pixels, bits), *transparency_notes(pixels, steps))
        return LoadedImage(pixels, None, "array", str(array.dtype), steps, notes), None
    if _streams.is_like_path(source):
        own_name = _streams.text_of(source)
        label = name or own_name or type(source).__name__
        return _decode_bytes(_streams.read_like_path(source, label), label, limits, reduce_to), own_name
    raise ImageDecodeError(
        f"cannot load a picture from {_with_article(type(source).__name__)}; "
        "pass a path, a URL, bytes, a file object, a PIL image, a numpy array or a torch tensor"
    )


def _decode_bytes(
    content: bytes | bytearray | memoryview, name: str, limits: Limits, reduce_to: int | None
) -> LoadedImage:
    if isinstance(content, memoryview):  # which may have gaps
        content = content.tobytes()
    return decode(io.BytesIO(content), name, limits=limits, reduce_to=reduce_to)


def _decode_stream(stream: Any, name: str, limits: Limits, reduce_to: int | None) -> LoadedImage:
    """Decode a file object from its position, or from its beginning if there is no picture at its position."""
    start = _streams.position(stream)
    content = _streams.read_all(stream, name, max_bytes=limits.bytes)
    try:
        return _decode_bytes(content, name, limits, reduce_to)
    except ImageDecodeError as err:
        if not start:
            raise
        stream.seek(0)
        whole = _streams.read_all(stream, name, max_bytes=limits.bytes)
        try:
            return _decode_bytes(whole, name, limits, reduce_to)
        except ImageDecodeError:
            if not content:
                raise
            raise err from None  # there was something at its position, and that is what the caller meant


def _name_of_pil(picture: Image.Image) -> str | None:
    filename = getattr(picture, "filename", "")
    if not isinstance(filename, str | bytes | os.PathLike) or not filename:
        return None
    path = os.fsdecode(filename)
    try:
        frame = picture.tell()
    except Exception:  # a closed file
        frame = 0
    return f"{path}#frame={frame}" if frame else path


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"

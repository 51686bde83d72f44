"""From whatever the user holds to an RGB array: path, URL, bytes, file object, PIL, numpy or torch.

The reading goes inwards in four steps, one file each: get the bytes (``_download``), open and decode them
(``_encoded``), or take an array as it is (``_arrays``); when something cannot be read, ``_filetypes`` says
what it looks like instead. Nothing here changes Pillow's global settings.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from s3seg.errors import ImageDecodeError
from s3seg.images._arrays import describe_array, rgb_from_array, tensor_to_array
from s3seg.images._download import download, is_url, without_credentials
from s3seg.images._encoded import decode, rgb_from_pil
from s3seg.images._loaded import LoadedImage, check_size

__all__ = ["MAX_BYTES", "MAX_PIXELS", "ImageSource", "LoadedImage", "load"]

ImageSource = Any
"""str | Path | bytes | file object | PIL image | numpy array | torch tensor | LoadedImage."""

MAX_PIXELS = 178_956_970
"""Largest picture read by default: the size at which Pillow itself refuses, above any single shot of a camera
(medium format backs have 151 megapixels). Decoding takes 1.3 GB for a moment; a service sets less."""

MAX_BYTES = 512 * 2**20
"""Most bytes taken from a URL or a stream by default: an uncompressed RGB picture of ``MAX_PIXELS`` fits."""


def load(
    source: ImageSource,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    timeout: float = 30.0,
    reduce_to: int | None = None,
) -> LoadedImage:
    """Read an image from anything, as RGB.

    What is done to it, always in this order, and told in ``LoadedImage.steps``: the first frame of an
    animation or of a multi-page file is taken; EXIF orientation is applied; 16-bit values are divided by 257
    (no stretching, so a 12-bit scan stored in 16 bits stays dark); transparency is composited on white; grey,
    palette, CMYK, YCbCr, LAB and HSV become RGB. Colour profiles are ignored, as SAM 3's own preprocessing
    does.

    Arrays are ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``, the channels last and in RGB(A)
    order; uint8, uint16, bool, or floats in 0..1. Tensors may have the channels first too: the axis of size
    1, 3 or 4 is the channels, and when both the first and the last could be, that is an error, not a guess.

    Args:
        source: A path, an http(s) URL, the bytes of an encoded image, a binary file object (read from where
            it stands), a PIL image, an array or a tensor. Do not pass strings of a stranger: a string is
            opened.
        name: What messages and results call it; by default the path, the URL or a description.
        max_pixels: Refuse pictures with more pixels, before they are decoded.
        max_bytes: Refuse longer downloads and streams.
        timeout: Seconds to wait for a server to connect, and between any two pieces of an answer.
        reduce_to: The pixels are to be scaled to a square of this side, so a large JPEG may be decoded at 1/2, 1/4
            or 1/8, no smaller than that: several times faster. ``LoadedImage.full_size`` tells the true size.

    Returns:
        The picture, with pixels of its own (never shared with the source).

    Raises:
        ImageDecodeError: It cannot be read; the message names it and says why.
    """
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, Image.Image):
        name = name or str(getattr(source, "filename", "") or "") or "PIL image"
        return rgb_from_pil(source, name, max_pixels=max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        name = name or f"{len(source)} bytes"
        return decode(io.BytesIO(source), name, max_pixels=max_pixels, reduce_to=reduce_to)
    if is_url(source):
        name = name or without_credentials(source)
        content = download(source, name, max_bytes=max_bytes, timeout=timeout)
        return decode(io.BytesIO(content), name, max_pixels=max_pixels, reduce_to=reduce_to)
    if isinstance(source, str | Path):
        return _load_path(source, name or str(source), max_pixels=max_pixels, max_bytes=max_bytes, reduce_to=reduce_to)
    if hasattr(source, "read"):
        name = name or str(getattr(source, "name", "") or "file object")
        return decode(_read_stream(source, name, max_bytes), name, max_pixels=max_pixels, reduce_to=reduce_to)
    return _load_array(source, name, max_pixels=max_pixels)


def _load_path(path: str | Path, name: str, *, max_pixels: int, max_bytes: int, reduce_to: int | None) -> LoadedImage:
    """Open a file and decode it; every way in which opening fails gets its own sentence."""
    short_name = name if len(name) <= 300 else f"{name[:300]}..."
    try:
        with Path(path).expanduser().open("rb") as file:
            stream = file if file.seekable() else _read_stream(file, short_name, max_bytes)
            return decode(stream, short_name, max_pixels=max_pixels, reduce_to=reduce_to)
    except FileNotFoundError as err:
        scheme, separator, _ = name.partition("://")
        if separator:
            raise ImageDecodeError(
                f"{short_name}: {scheme}:// addresses cannot be read; give a path or an http(s) URL"
            ) from err
        raise ImageDecodeError(f"{short_name}: there is no such file") from err
    except IsADirectoryError as err:
        raise ImageDecodeError(f"{short_name}: this is a folder, not an image") from err
    except PermissionError as err:
        # Windows answers "permission denied" when a folder is opened.
        if Path(path).expanduser().is_dir():
            raise ImageDecodeError(f"{short_name}: this is a folder, not an image") from err
        raise ImageDecodeError(f"{short_name}: no permission to read this file") from err
    except (OSError, ValueError, RuntimeError) as err:
        if isinstance(err, ImageDecodeError):
            raise
        raise ImageDecodeError(f"{short_name}: cannot be opened: {getattr(err, 'strerror', None) or err}") from err


def _read_stream(stream: IO[bytes], name: str, max_bytes: int) -> io.BytesIO:
    """Read a stream to its end, or refuse it once it is longer than ``max_bytes``."""
    try:
        content = stream.read(max_bytes + 1)
    except (OSError, ValueError) as err:
        raise ImageDecodeError(f"{name}: cannot be read: {err}") from err
    if isinstance(content, str):
        raise ImageDecodeError(f'{name}: the file is open as text; open it with mode "rb"')
    if len(content) > max_bytes:
        raise ImageDecodeError(f"{name}: more than the {max_bytes} bytes that are read from a stream (max_bytes)")
    return io.BytesIO(content)


def _load_array(source: Any, name: str | None, *, max_pixels: int) -> LoadedImage:
    """Take a numpy array, a torch tensor, or anything that numpy can see as an array."""
    if all(hasattr(source, method) for method in ("detach", "cpu", "numpy")):
        name = name or f"tensor {tuple(source.shape)} {source.dtype}"
        array = tensor_to_array(source, name)
    elif isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        array = np.asarray(source)
        name = name or describe_array(array)
    else:
        raise ImageDecodeError(
            f"cannot make an image of a {type(source).__name__}; "
            "give a path, a URL, bytes, a file object, a PIL image, a numpy array or a torch tensor"
        )
    if array.ndim >= 2:
        check_size(array.shape[1], array.shape[0], name, max_pixels=max_pixels)
    pixels, steps = rgb_from_array(array, name)
    return LoadedImage(pixels=pixels, source=name, format="array", mode=str(array.dtype), steps=steps)

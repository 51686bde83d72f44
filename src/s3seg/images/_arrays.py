"""Convert arrays and tensors to 8-bit RGB. The rules are those of :func:`s3seg.images.load`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from s3seg.errors import ImageDecodeError

COMPOSITED = "transparency composited on white"
_CHANNELS = (1, 3, 4)
_STRIP_ROWS = 256  # pictures are converted in strips of rows, so that intermediate copies stay small
_FLOAT_TOLERANCE = 1e-3  # interpolation may overshoot 0..1 by this much


def is_array(source: Any) -> bool:
    """Return whether a source is an array, a tensor, or an object that numpy can convert to an array."""
    return any(hasattr(source, method) for method in ("__array__", "__array_interface__", "__cuda_array_interface__"))


def as_array(source: Any, name: str | None) -> tuple[npt.NDArray[Any], str]:
    """Return an array or tensor as a numpy array with the channels last, and its name for messages.

    Raises:
        ImageDecodeError: It cannot be converted, or it is ambiguous which axis has the channels.
    """
    if all(hasattr(source, method) for method in ("detach", "cpu", "numpy")):  # torch, without importing it
        name = name or f"tensor {tuple(source.shape)} {source.dtype}"
        return _tensor_to_array(source, name), name
    try:
        array = np.asarray(source)
    except Exception as err:  # such as arrays on a GPU, which convert only on request
        raise ImageDecodeError(
            f"{name or type(source).__name__}: cannot be converted to a numpy array: {err or type(err).__name__}; "
            "convert it yourself and pass the numpy array"
        ) from err
    return array, name or f"array {array.shape} {array.dtype}"


def _tensor_to_array(tensor: Any, name: str) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    array = tensor.numpy()
    if array.ndim != 3:
        return array
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if first and last:
        raise ImageDecodeError(
            f"{name}: either the first or the last axis could be the channels; "
            "pass a numpy array with the channels last"
        )
    return array.transpose(1, 2, 0) if first else array


def rgb_from_array(array: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], tuple[str, ...], int]:
    """Convert an array with the channels last to a new ``(H, W, 3)`` uint8 RGB array.

    Args:
        array: ``(H, W)`` or ``(H, W, C)`` with C = 1, 3 or 4; uint8, uint16, bool, or floats in 0..1.
        name: Name of the array in messages.

    Returns:
        The pixels, the conversions that were made, and the bits of a value: 8 or 16.

    Raises:
        ImageDecodeError: The shape, the dtype or the values are not those of a picture.
    """
    _check_shape(array.shape, name)
    steps = _check_values(array, name)
    if array.ndim == 2:
        array = array[:, :, None]
    height, width, channels = array.shape
    pixels = np.empty((height, width, 3), np.uint8)
    has_transparency = False
    for rows in strips(height):
        values = to_uint8(array[rows])
        if channels == 4:
            values, is_transparent = on_white(Image.fromarray(np.ascontiguousarray(values)))
            has_transparency |= is_transparent
        pixels[rows] = values  # a single channel is repeated
    if channels == 1:
        steps += ("grey repeated to RGB",)
    if has_transparency:
        steps += (COMPOSITED,)
    return pixels, steps, 16 if array.dtype.kind == "u" and array.dtype.itemsize == 2 else 8


def strips(height: int) -> Iterator[slice]:
    """Yield the rows of a picture in consecutive strips."""
    for top in range(0, height, _STRIP_ROWS):
        yield slice(top, min(top + _STRIP_ROWS, height))


def to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale uint8, uint16, bool, or floats in 0..1 to the nearest of 0..255."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        return (np.clip(values, 0, 1).astype(np.float32) * 255 + 0.5).astype(np.uint8)
    if values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    return values


def on_white(rgba: Image.Image) -> tuple[npt.NDArray[np.uint8], bool]:
    """Composite an RGBA picture on white; return its RGB pixels, and whether any pixel was transparent."""
    if rgba.getchannel("A").getextrema() == (255, 255):
        return np.asarray(rgba)[:, :, :3], False
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba))[:, :, :3], True


def check_float_range(low: float, high: float, name: str) -> None:
    """Raise ImageDecodeError if floats from ``low`` to ``high`` are not in 0..1, or are NaN."""
    if not (low >= -_FLOAT_TOLERANCE and high <= 1 + _FLOAT_TOLERANCE):  # also true for NaN
        if low != low or high != high:
            raise ImageDecodeError(
                f"{name}: floats must be in 0..1, but some are not numbers (NaN); replace them: numpy.nan_to_num(...)"
            )
        raise ImageDecodeError(
            f"{name}: floats must be in 0..1, but these range from {low:.4g} to {high:.4g}; "
            "convert to uint8, or undo the normalisation"
        )


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS):
        return
    if len(shape) == 4:
        advice = "this is a batch; pass one picture at a time, as in batch[0]"
    elif len(shape) == 3 and shape[0] in _CHANNELS:
        advice = "the channels seem to come first; pass array.transpose(1, 2, 0)"
    else:
        advice = "expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    raise ImageDecodeError(f"{name}: an array of shape {shape} is not a picture: {advice}")


def _check_values(array: npt.NDArray[Any], name: str) -> tuple[str, ...]:
    """Check dtype and range; return the step that scales the values to 8 bits."""
    kind, bits = array.dtype.kind, array.dtype.itemsize * 8
    if kind == "u" and bits == 8:
        return ()
    if kind == "b":
        return ("0 and 1 scaled to 0 and 255",)
    if kind == "u" and bits == 16:
        return ("16 bit scaled to 8 bit",)
    if kind == "f":
        check_float_range(float(array.min()), float(array.max()), name)
        return ("0..1 scaled to 0..255",)
    raise ImageDecodeError(
        f"{name}: values of type {array.dtype} have no defined range; "
        "convert to uint8 (0..255), uint16 (0..65535) or float (0..1)"
    )

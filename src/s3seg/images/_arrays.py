"""Arrays and tensors to 8-bit RGB. The rules are written once, in :func:`s3seg.images.load`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from s3seg.errors import ImageDecodeError

_CHANNELS = (1, 3, 4)
_STRIP = 256  # rows
_FLOAT_SLACK = 1e-3  # what interpolation may add outside 0..1


def describe_array(array: npt.NDArray[Any]) -> str:
    """Name an array by its shape and dtype, for messages."""
    return f"array {array.shape} {array.dtype}"


def tensor_to_array(tensor: Any, name: str) -> npt.NDArray[Any]:
    """Bring a torch tensor to numpy with the channels last; torch itself is not imported.

    Raises:
        ImageDecodeError: Not one image, or no telling which axis is the channels.
    """
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    array = tensor.numpy()
    if array.ndim != 3:
        return array
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if first and last:
        raise ImageDecodeError(
            f"{name}: both the first and the last axis could be the channels; "
            "pass a numpy array (channels last) to say which"
        )
    return array.transpose(1, 2, 0) if first else array


def rgb_from_array(array: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Make a new ``(H, W, 3)`` uint8 RGB array of an array with the channels last.

    Args:
        array: ``(H, W)`` or ``(H, W, C)`` with C = 1, 3 or 4; uint8, uint16, bool, or floats in 0..1.
        name: What messages call it.

    Returns:
        The pixels, and what was done in words.

    Raises:
        ImageDecodeError: The shape, the dtype or the values are not those of a picture.
    """
    _check_shape(array.shape, name)
    values, steps = _to_uint8(array, name)
    if values.ndim == 2:
        values = values[:, :, None]
    channels = values.shape[2]
    if channels == 1:
        return np.repeat(values, 3, axis=2), (*steps, "grey repeated to RGB")
    if channels == 3:
        return np.array(values, order="C"), steps
    picture, composited = flatten_alpha(Image.fromarray(np.ascontiguousarray(values)))
    return pixels_of(picture), (*steps, *composited)


def flatten_alpha(rgba: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Composite an RGBA picture on white; leave an opaque one as it is."""
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB"), ()
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB"), ("transparency composited on white",)


def pixels_of(rgb: Image.Image) -> npt.NDArray[np.uint8]:
    """Copy the pixels of an RGB picture, in strips: numpy's own way holds them twice for a moment."""
    pixels = np.empty((rgb.height, rgb.width, 3), np.uint8)
    for top in range(0, rgb.height, _STRIP):
        bottom = min(top + _STRIP, rgb.height)
        pixels[top:bottom] = np.asarray(rgb.crop((0, top, rgb.width, bottom)))
    return pixels


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS):
        return
    if len(shape) == 4:
        advice = "this is a batch; pass one picture at a time, as in batch[0]"
    elif len(shape) == 3 and shape[0] in _CHANNELS:
        advice = "the channels seem to come first; pass array.transpose(1, 2, 0)"
    else:
        advice = "expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    raise ImageDecodeError(f"{name}: the shape {shape} is not that of a picture: {advice}")


def _to_uint8(array: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    kind, bits = array.dtype.kind, array.dtype.itemsize * 8
    if kind == "u" and bits == 8:
        return array, ()
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255), ("0 and 1 scaled to 0 and 255",)
    if kind == "u" and bits == 16:
        # 65535 = 255 * 257: the nearest 8-bit value, and 0 and white stay exact.
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8), ("16 bit scaled to 8 bit",)
    if kind == "f":
        return _float_to_uint8(array, name), ("0..1 scaled to 0..255",)
    raise ImageDecodeError(
        f"{name}: values of type {array.dtype} have no agreed range; "
        "convert to uint8 (0..255), uint16 (0..65535) or float (0..1)"
    )


def _float_to_uint8(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    low, high = float(array.min()), float(array.max())
    if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # also catches NaN
        raise ImageDecodeError(
            f"{name}: floats must be in 0..1, but these go from {low:.4g} to {high:.4g}; "
            "convert to uint8, or undo the normalisation"
        )
    return (np.clip(array, 0, 1).astype(np.float32) * 255 + 0.5).astype(np.uint8)

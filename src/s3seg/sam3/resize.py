"""From a picture to the network's input; decoding processes import this and not the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def preprocess(image: np.ndarray, size: int) -> Tensor:
    """Prepare an image for the network: `resize`, then `normalise`; fp32 (1, 3, size, size)."""
    return normalise(resize(image, size))


def resize(image: np.ndarray, size: int) -> Tensor:
    """Resize without keeping the aspect ratio (antialiased bilinear).

    Args:
        image: uint8 (H, W, 3), RGB.
        size: Side of the model's input, in pixels.

    Returns:
        uint8 (1, 3, size, size)
    """
    writable = np.require(image, requirements=["C", "W"])  # Pillow's arrays are read-only, which torch warns about
    pixels = torch.from_numpy(writable).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def resized_from_bytes(content: bytes, size: int) -> Tensor:
    """Make a tensor of the bytes of what `resize` returned, for example in another process.

    Args:
        content: uint8 (1, 3, size, size), C-contiguous.
        size: Side of the model's input, in pixels.
    """
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(1, 3, size, size)


def normalise(pixels: Tensor) -> Tensor:
    """Scale 0..255 to -1..1, fp32."""
    return pixels.float() / 127.5 - 1

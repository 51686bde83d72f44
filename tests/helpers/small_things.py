"""A picture with things that are too small for one pass of the embedded checkpoint."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from train_small_sam3.shapes import draw_shape


def circles() -> bytes:
    """Nine red circles of 28 pixels on a picture of 700: too small to be found without tiles."""
    rng = np.random.default_rng(0)
    image = np.full((700, 700, 3), 235, np.uint8)
    for k in range(9):
        patch = draw_shape("circle", "red", "solid", radius=14, rng=rng)
        top, left = 60 + 220 * (k // 3), 70 + 215 * (k % 3)
        alpha = patch[..., 3:] / 255
        window = image[top : top + 28, left : left + 28]
        image[top : top + 28, left : left + 28] = patch[..., :3] + window * (1 - alpha)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()

"""Colours that are easy to tell apart: evenly spaced hues (in OKLab), assigned so that neighbours differ.

OKLab is Björn Ottosson's, https://bottosson.github.io/posts/oklab/.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

RGB: TypeAlias = tuple[int, int, int]

_GOLDEN_ANGLE = 137.508  # degrees; multiples of it fill the circle evenly, however many are taken
_FIRST_HUE = 255.0  # blue
_PALETTE_SIZE = 24


def palette_color(index: int) -> RGB:
    """Return the index-th colour of an endless palette, sRGB 0..255."""
    lightness, a, b = _palette_oklab(index)
    return _oklab_to_srgb(lightness, a, b)


def assign_colors(boxes: np.ndarray) -> list[int]:
    """Choose a palette index for each box, so that boxes near each other differ most.

    Each box in turn takes the colour least similar to those of the boxes before it, weighted by nearness.

    Args:
        boxes: (N, 4) xyxy.
    """
    palette = np.array([_palette_oklab(k) for k in range(_PALETTE_SIZE)])
    similarity = np.exp(-np.sum((palette[:, None] - palette[None]) ** 2, axis=2) / (2 * 0.07**2))
    extent = float(boxes.max(initial=1.0))  # what counts as near depends on the picture
    chosen: list[int] = []
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        before = boxes[:k]
        gap_x = np.maximum(before[:, 0] - x2, x1 - before[:, 2]).clip(0)
        gap_y = np.maximum(before[:, 1] - y2, y1 - before[:, 3]).clip(0)
        nearness = 0.01 + np.exp(-20 * np.hypot(gap_x, gap_y) / extent)
        chosen.append(int(np.argmin(nearness @ similarity[chosen])) if chosen else 0)
    return chosen


def text_color(background: RGB) -> RGB:
    """Return black or white, whichever contrasts more with the background (WCAG relative luminance)."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else (0, 0, 0)


def _palette_oklab(index: int) -> tuple[float, float, float]:
    hue = math.radians((_FIRST_HUE + index * _GOLDEN_ANGLE) % 360)
    # Yellows are vivid when light and blues when dark; each round of the palette shifts lightness as well.
    lightness = 0.72 + 0.09 * math.cos(hue - math.radians(105)) + (0.0, 0.07, -0.07)[index // 8 % 3]
    chroma = 0.19
    while chroma > 0 and not _in_gamut(lightness, chroma * math.cos(hue), chroma * math.sin(hue)):
        chroma -= 0.005
    return lightness, chroma * math.cos(hue), chroma * math.sin(hue)


def _in_gamut(lightness: float, a: float, b: float) -> bool:
    return all(-1e-4 <= c <= 1 + 1e-4 for c in _oklab_to_linear(lightness, a, b))


def _oklab_to_linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    l3 = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m3 = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s3 = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * l3 - 3.3077115913 * m3 + 0.2309699292 * s3,
        -1.2684380046 * l3 + 2.6097574011 * m3 - 0.3413193965 * s3,
        -0.0041960863 * l3 - 0.7034186147 * m3 + 1.7076147010 * s3,
    )


def _oklab_to_srgb(lightness: float, a: float, b: float) -> RGB:
    linear = (min(max(c, 0.0), 1.0) for c in _oklab_to_linear(lightness, a, b))
    r, g, b = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in linear)
    return round(255 * r), round(255 * g), round(255 * b)

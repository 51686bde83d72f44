"""Make one drawing style into many: tone, flat colours, ink lines; and paint an icon in a colour."""

from __future__ import annotations

import cv2
import numpy as np

from .shapes import COLOURS

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
KERNEL = np.ones((3, 3), np.uint8)


def restyle(icon: np.ndarray, rng: np.random.Generator, *, keep_hue: bool = False) -> np.ndarray:
    """Redraw an icon in a style of chance.

    Args:
        icon: Premultiplied RGBA (K, K, 4) uint8.
        rng: Where the style comes from.
        keep_hue: Leave colours recognisable, for icons whose colour is asked for.

    Returns:
        Premultiplied RGBA (K, K, 4) uint8 with the same alpha.
    """
    flat_rgb = _unpremultiply(icon)
    kind = rng.random()
    inked = kind < 0.38
    colours = _posterise(flat_rgb, rng) if kind < 0.62 else flat_rgb.astype(np.float32)
    colours = _tone(colours, rng, keep_hue=keep_hue)
    if inked:
        colours = _ink_lines(colours, flat_rgb, icon[..., 3], rng)
    return _premultiply(colours, icon[..., 3])


def restyle_harshly(icon: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Redraw an icon so that little but its shape is left: a silhouette, a line drawing, or other colours.

    Returns:
        Premultiplied RGBA (K, K, 4) uint8 with the same alpha.
    """
    rgb, alpha, kind = _unpremultiply(icon), icon[..., 3], rng.random()
    if kind < 0.3:  # channels swapped, sometimes inverted
        colours = rgb[..., rng.permutation(3)].astype(np.float32)
        if rng.random() < 0.25:
            colours = 255 - colours
    elif kind < 0.55:  # one flat colour, inner lines in another
        flat, line = _two_colours(rng)
        lines = _inner_lines(rgb, alpha, rng)
        colours = flat * (1 - lines) + line * lines
    elif kind < 0.85:  # ink on white or tinted paper
        paper = np.clip(rng.uniform(200, 255) + rng.uniform(-25, 10, 3), 0, 255)
        colours = _ink_lines(np.broadcast_to(paper, rgb.shape).astype(np.float32), rgb, alpha, rng, paper=False)
    else:  # two tones, by brightness
        dark, light = _two_colours(rng)
        shade = cv2.GaussianBlur(rgb.astype(np.float32) @ LUMA, (3, 3), 0)
        solid = alpha > 127
        bright = (shade > (np.median(shade[solid]) if solid.any() else 128))[..., None]
        colours = np.where(bright, light, dark)
    return _premultiply(colours, alpha)


def recolour_glyph(icon: np.ndarray, rng: np.random.Generator, colour: str | None = None) -> np.ndarray:
    """Give a black drawing, whose enclosed parts are white paper, other colours of ink and paper; the same alpha.

    Args:
        icon: Premultiplied RGBA (K, K, 4) uint8.
        rng: Where the colours come from.
        colour: Paint whatever covers more, ink or paper, in this colour.
    """
    paper_share = (_unpremultiply(icon).astype(np.float32) @ LUMA / 248).clip(0, 1)[..., None]
    if colour is not None:
        main = np.clip(np.array(COLOURS[colour], np.float32) + rng.uniform(-14, 14, 3), 0, 255)
        solid = icon[..., 3] > 127
        mostly_paper = solid.any() and paper_share[solid].mean() > 0.5
        other = rng.uniform(0, 45, 3) if main @ LUMA > 90 else rng.uniform(215, 255, 3)
        ink, paper = (other, main) if mostly_paper else (main, other)
    else:
        ink, paper = (np.zeros(3), np.full(3, 248.0)) if rng.random() < 0.3 else _two_colours(rng)
    return _premultiply(ink * (1 - paper_share) + paper * paper_share, icon[..., 3])


def turn_hue(icon: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn all hues of an icon by a random angle; black and white stay."""
    hsv = cv2.cvtColor(_unpremultiply(icon), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(180))) % 180
    return _premultiply(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32), icon[..., 3])


def _two_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two colours that are easy to tell apart, the darker first half of the time."""
    for _ in range(20):
        first, second = rng.uniform(0, 255, (2, 3))
        if rng.random() < 0.4:
            first, second = rng.uniform(0, 70, 3), rng.uniform(190, 255, 3)
        if abs(float((first - second) @ LUMA)) > 60:
            break
    return (first, second) if rng.random() < 0.75 else (second, first)


def tint(icon: np.ndarray, colour: str, rng: np.random.Generator) -> np.ndarray:
    """Paint the main colour of an icon in another: a red car becomes a green one. Same shapes and shades."""
    rgb = _unpremultiply(icon)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(np.float32)
    body = _main_colour(hsv, icon[..., 3])
    shade = rgb.astype(np.float32) @ LUMA
    middle = np.median(shade[body > 0.5]) if (body > 0.5).any() else 128.0
    target = np.clip(np.array(COLOURS[colour], np.float32) + rng.uniform(-14, 14, 3), 0, 255)
    painted = target + (shade - middle)[..., None] * rng.uniform(0.5, 0.9)
    mixed = rgb * (1 - body[..., None]) + painted * body[..., None]
    return _premultiply(mixed, icon[..., 3])


def _main_colour(hsv: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return how much each pixel belongs to the commonest hue, or to the greys if those prevail: (K, K) 0..1."""
    solid, coloured = alpha > 127, hsv[..., 1] > 70
    if (solid & coloured).sum() < 0.25 * solid.sum():
        return ((~coloured) & (hsv[..., 2] > 60)).astype(np.float32)
    counts = np.bincount((hsv[..., 0][solid & coloured] / 10).astype(int), minlength=18)
    hue = 10 * int(np.argmax(counts + np.roll(counts, 1) + np.roll(counts, -1))) + 5
    distance = np.abs((hsv[..., 0] - hue + 90) % 180 - 90)
    return (np.clip((24 - distance) / 8, 0, 1) * np.clip((hsv[..., 1] - 50) / 30, 0, 1)).astype(np.float32)


def _posterise(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    large = len(rgb) >= 64
    smooth = cv2.medianBlur(rgb, 5 if large else 3)
    if large and rng.random() < 0.5:
        smooth = cv2.medianBlur(smooth, 5)
    levels = int(rng.integers(3, 7))
    colours = np.round(smooth.astype(np.float32) / 255 * levels) / levels * 255
    if rng.random() < 0.4:
        colours += (255 - colours) * rng.uniform(0.1, 0.45)
    return colours


def _tone(colours: np.ndarray, rng: np.random.Generator, *, keep_hue: bool) -> np.ndarray:
    kind = rng.random()
    if kind < 0.1 and not keep_hue:
        return np.repeat((colours @ LUMA)[..., None], 3, axis=2) * rng.uniform(0.85, 1.1, 3)
    if kind > 0.75:
        return colours
    hsv = cv2.cvtColor(colours.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
    hue_spread = 3 if keep_hue else 7 if kind < 0.55 else 18
    hsv[..., 0] = (hsv[..., 0] + rng.normal(0, hue_spread)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.55, 1.4), 0, 255)
    hsv[..., 2] = np.clip(hsv[..., 2] * rng.uniform(0.75, 1.2) + rng.uniform(-10, 10), 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)


def _ink_lines(
    colours: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, rng: np.random.Generator, *, paper: bool = True
) -> np.ndarray:
    size = len(rgb)
    width = max(1, round(size / rng.uniform(26, 50)))
    solid = (alpha > 127).astype(np.uint8)
    lines = solid - cv2.erode(solid, KERNEL, iterations=width, borderValue=0)
    if rng.random() < 0.75:
        inner = _edge_pixels(rgb, alpha, rng.uniform(110, 260))
        if width > 2 and rng.random() < 0.5:
            inner = cv2.dilate(inner, KERNEL)
        lines = np.maximum(lines, inner)
    ink = rng.uniform(0, 60, 3) if rng.random() < 0.85 else rng.uniform(0, 255, 3)
    if paper and rng.random() < 0.25:  # a line drawing on paper
        colours = colours + (rng.uniform(215, 255) - colours) * rng.uniform(0.6, 1)
    strength = cv2.GaussianBlur(lines.astype(np.float32), (3, 3), 0)[..., None]
    return colours * (1 - strength) + ink * strength


def _edge_pixels(rgb: np.ndarray, alpha: np.ndarray, limit: float) -> np.ndarray:
    edges = _edges(cv2.medianBlur(rgb, 3 if len(rgb) < 64 else 5)) > limit
    return (edges & (alpha > 127)).astype(np.uint8)


def _inner_lines(rgb: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much a pixel belongs to a line inside the drawing, (K, K, 1) 0..1."""
    lines = _edge_pixels(rgb, alpha, rng.uniform(70, 160))
    if len(rgb) >= 64 and rng.random() < 0.5:
        lines = cv2.dilate(lines, KERNEL)
    return cv2.GaussianBlur(lines.astype(np.float32), (3, 3), 0)[..., None]


def _edges(rgb: np.ndarray) -> np.ndarray:
    channels = rgb.astype(np.float32)
    gradient = np.abs(cv2.Sobel(channels, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(channels, cv2.CV_32F, 0, 1))
    return gradient.max(axis=2)


def _unpremultiply(icon: np.ndarray) -> np.ndarray:
    alpha = icon[..., 3]
    rgb = cv2.divide(np.ascontiguousarray(icon[..., :3]), cv2.merge([np.maximum(alpha, 5)] * 3), scale=255)
    rgb[alpha < 3] = 128
    return rgb


def _premultiply(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    colours = cv2.convertScaleAbs(np.maximum(rgb, 0))  # rounds, and stays within 255
    return np.dstack([cv2.multiply(colours, cv2.merge([alpha] * 3), scale=1 / 255), alpha])

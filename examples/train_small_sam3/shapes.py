"""Plain shapes in colours and patterns, drawn from their geometry."""

from __future__ import annotations

import math

import cv2
import numpy as np

SHAPES = (
    "circle", "square", "triangle", "star", "pentagon", "hexagon",
    "diamond", "ring", "cross", "crescent", "rectangle", "oval",
)  # fmt: skip
COLOURS = {
    "red": (215, 35, 35), "orange": (245, 135, 20), "yellow": (245, 220, 40), "green": (40, 160, 60),
    "blue": (35, 80, 215), "purple": (125, 45, 170), "pink": (250, 140, 190), "brown": (120, 70, 30),
    "black": (22, 22, 24), "white": (246, 246, 246), "gray": (135, 135, 138), "cyan": (60, 205, 220),
}  # fmt: skip
PATTERNS = ("solid", "striped", "dotted")
COLOUR_NAMES = tuple(COLOURS)
HELD_OUT_COMBINATIONS = frozenset(
    {(COLOUR_NAMES[i], SHAPES[(i * 5 + 3) % 12]) for i in range(12)}
    | {(COLOUR_NAMES[i], SHAPES[(i * 7 + 8) % 12]) for i in range(12)}
)
"""24 pairs of colour and shape that training never shows together."""


def draw_shape(shape: str, colour: str, pattern: str, *, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Return premultiplied RGBA (2 * radius, 2 * radius, 4) uint8."""
    alpha = _outline(shape, radius, rng)
    base = np.clip(np.array(COLOURS[colour]) + rng.uniform(-16, 16, 3), 0, 255)
    paint = np.broadcast_to(base, (*alpha.shape, 3)).astype(np.float32)
    if pattern != "solid":
        paint = np.where(_ink(pattern, len(alpha), rng)[..., None], _second_colour(base, rng), paint)
    elif rng.random() < 0.35:
        paint = paint * np.linspace(rng.uniform(0.8, 1), rng.uniform(1, 1.12), len(alpha))[:, None, None]
    elif rng.random() < 0.3:
        core = cv2.erode(alpha, np.ones((3, 3), np.uint8), iterations=max(1, radius // 14))
        paint = np.where((core < 128)[..., None], base * 0.5, paint)
    opaque = np.clip(paint, 0, 255) * (alpha[..., None].astype(np.float32) / 255)
    return np.dstack([opaque, alpha]).astype(np.uint8)


def _outline(shape: str, radius: int, rng: np.random.Generator) -> np.ndarray:
    alpha = np.zeros((2 * radius, 2 * radius), np.uint8)
    centre, reach = (radius, radius), int(radius * 0.96)

    def disc(centre: tuple[int, int], axes: tuple[int, int], value: int) -> None:
        cv2.ellipse(alpha, centre, axes, 0, 0, 360, value, cv2.FILLED, cv2.LINE_AA)

    if shape == "circle":
        disc(centre, (reach, reach), 255)
    elif shape == "oval":
        disc(centre, (reach, int(reach * rng.uniform(0.45, 0.7))), 255)
    elif shape == "ring":
        hole = int(reach * rng.uniform(0.45, 0.65))
        disc(centre, (reach, reach), 255)
        disc(centre, (hole, hole), 0)
    elif shape == "crescent":
        bite = int(radius * 0.85)
        disc(centre, (reach, reach), 255)
        disc((int(radius * 1.42), int(radius * 0.9)), (bite, bite), 0)
    else:
        corners = np.round(_corners(shape, rng) * reach + radius).astype(np.int32)
        cv2.fillPoly(alpha, [corners], 255, lineType=cv2.LINE_AA)
    return alpha


def _corners(shape: str, rng: np.random.Generator) -> np.ndarray:
    if shape == "square":
        return np.array([[-0.74, -0.74], [0.74, -0.74], [0.74, 0.74], [-0.74, 0.74]])
    if shape == "rectangle":
        h = rng.uniform(0.3, 0.55)
        return np.array([[-0.9, -h], [0.9, -h], [0.9, h], [-0.9, h]])
    if shape == "diamond":
        w = rng.uniform(0.6, 0.72)
        return np.array([[0, -1], [w, 0], [0, 1], [-w, 0]])
    if shape == "cross":
        w = rng.uniform(0.24, 0.36)
        quarter = np.array([[-w, -1], [w, -1], [w, -w]])
        turn = np.array([[0, 1], [-1, 0]])  # a quarter turn, points as rows
        return np.concatenate([quarter, quarter @ turn, quarter @ turn @ turn, quarter @ turn @ turn @ turn])
    if shape == "star":
        inner = _regular(5, rng.uniform(0.38, 0.5), -math.pi / 2 + math.pi / 5)
        return np.stack([_regular(5), inner], axis=1).reshape(-1, 2)
    return _regular({"triangle": 3, "pentagon": 5, "hexagon": 6}[shape])


def _regular(corners: int, radius: float = 1.0, start: float = -math.pi / 2) -> np.ndarray:
    angles = start + 2 * math.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _second_colour(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    brightness = base.mean()
    if brightness > 150 or (brightness > 60 and rng.random() < 0.35):
        return base * 0.45
    return base + (255 - base) * 0.65


def _ink(pattern: str, size: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    if pattern == "striped":
        angle, period = rng.uniform(0, math.pi), size / rng.uniform(4, 7)
        return ((x * math.cos(angle) + y * math.sin(angle)) / period % 1) < 0.45
    period = size / rng.uniform(4, 6)
    return (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < (period * 0.28) ** 2

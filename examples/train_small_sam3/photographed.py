"""Make a scene look like a photograph of a drawing: seen at an angle, unevenly lit, a little blurred and noisy."""

from __future__ import annotations

import cv2
import numpy as np


def photographed(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a drawing that lies on something.

    Args:
        image: RGB (S, S, 3) float32, 0..255.
        ids: (S, S) uint8, which thing is visible at each pixel.
        rng: Where the choices come from.

    Returns:
        Both as the camera sees them, in the same shapes and types.
    """
    size = len(ids)
    image, ids = _at_an_angle(image, ids, rng)
    if rng.random() < 0.6:  # printed on paper: less contrast, a warm or cold white
        paper = np.clip(rng.uniform(205, 255) + rng.uniform(-14, 10, 3), 0, 255)
        image = paper * (image.clip(0, 255) / 255) ** rng.uniform(0.8, 1.15) * rng.uniform(0.85, 1) + rng.uniform(0, 28)
    image = image * _light(size, rng)
    if rng.random() < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1) * size / 224)
    grain = rng.normal(0, rng.uniform(1, 8), (size, size, 1)) + rng.normal(0, rng.uniform(0, 4), (size, size, 3))
    image = (image + grain).clip(0, 255)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 92))]
        image = cv2.imdecode(cv2.imencode(".jpg", image.astype(np.uint8), quality)[1], cv2.IMREAD_COLOR)
    return image.astype(np.float32), ids


def _at_an_angle(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    size = len(ids)
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    turn, zoom = np.radians(rng.normal(0, 6)), rng.uniform(0.84, 1.0)
    cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
    moved = (corners - size / 2) @ np.array([[cos, sin], [-sin, cos]]) + size / 2
    moved += rng.uniform(-0.09, 0.09, (4, 2)) * size
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    table = tuple(float(v) for v in np.clip(rng.uniform(20, 235) + rng.uniform(-30, 30, 3), 0, 255))
    seen = cv2.warpPerspective(
        image.astype(np.float32), matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=table
    )
    return seen, cv2.warpPerspective(ids, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=0)


def _light(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return brightness by place and colour, (S, S, 3): brighter on one side, sometimes with a soft shadow."""
    place = np.linspace(-1, 1, size, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.22, 0.22, 2)
    light = 1 + slope_x * place[None] + slope_y * place[:, None]
    if rng.random() < 0.4:
        angle, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
        across = np.cos(angle) * place[None] + np.sin(angle) * place[:, None] - edge
        light = light * (1 - rng.uniform(0.1, 0.45) / (1 + np.exp(-across * rng.uniform(6, 40))))
    return (light * rng.uniform(0.8, 1.1))[..., None] * rng.uniform(0.93, 1.07, 3).astype(np.float32)

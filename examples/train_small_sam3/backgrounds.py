"""What lies behind the things: flat colours, gradients, noise, landscapes, and patches of photographs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from .textures import draw_texture

BACKGROUND_PHOTOGRAPHS = (
    "brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "retina.jpg", "ihc.png",
    "motorcycle_left.png",
)  # fmt: skip
TEST_PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")
"""Kept apart, for the test that photographs are left empty."""


def photograph(name: str) -> np.ndarray:
    """Return a photograph that scikit-image ships: RGB (H, W, 3) uint8."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / name
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def draw_background(
    size: int, rng: np.random.Generator, *, photographs: float = 0.12, textures: float = 0.0, same_grain: bool = False
) -> np.ndarray:
    """Return an empty scene: RGB (size, size, 3) float32, 0..255.

    Args:
        size: Side of the picture, pixels.
        rng: Where the choices come from.
        photographs: Share of scenes in front of a patch of a photograph.
        textures: Share of scenes in front of a drawn texture: bricks, wood, cloth, tiles, paper.
        same_grain: Cut noise out of one large piece of it, which is much quicker than to draw it anew.
    """
    if textures and rng.random() < textures:
        return draw_texture(size, rng)
    kind = rng.random()
    if kind < photographs:
        return photograph_patch(size, rng)
    kind = 0.12 + (kind - photographs) / (1 - photographs) * 0.88
    colours = _palette(rng)
    if kind < 0.22:
        image = np.broadcast_to(colours[0], (size, size, 3)).astype(np.float32)
    elif kind < 0.46:
        image = _stretch(colours.reshape(2, 2, 3), size)
    elif kind < 0.62:
        image = _landscape(colours, size, rng)
    else:
        image = _noise(colours[0], size, rng)
    image = np.ascontiguousarray(image)
    if rng.random() < 0.4:
        image = _clutter(image, rng)
    if rng.random() < 0.3:
        strength = rng.uniform(3, 14)
        noise = _grain(size, rng) * np.float32(strength) if same_grain else rng.normal(0, strength, image.shape)
        image = image + noise.astype(np.float32, copy=False)
    return np.clip(image, 0, 255, out=image)


def _grain(size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a piece (size, size, 3) out of the noise, at a random place."""
    noise = _noise_field(2 * size)
    top, left = rng.integers(0, size, 2)
    return noise[top : top + size, left : left + size]


@cache
def _noise_field(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size, size, 3), np.float32)


def photograph_patch(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random patch of one of `BACKGROUND_PHOTOGRAPHS`: RGB (size, size, 3) float32."""
    picture = _background_photograph(int(rng.integers(len(BACKGROUND_PHOTOGRAPHS))))
    side = int(rng.uniform(0.25, 0.95) * min(picture.shape[:2]))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    patch = cv2.resize(picture[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    return np.clip(patch * rng.uniform(0.7, 1.15, 3) + rng.uniform(-15, 15), 0, 255).astype(np.float32)


@cache
def _background_photograph(index: int) -> np.ndarray:
    return photograph(BACKGROUND_PHOTOGRAPHS[index])


def _palette(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.6:
        return rng.uniform(0, 255, (4, 3)).astype(np.float32)
    return np.clip(rng.uniform(60, 240, 3) + rng.uniform(-30, 30, (4, 3)), 0, 255).astype(np.float32)


def _stretch(corners: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(corners.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def _noise(colour: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    cells = int(rng.integers(3, 14))
    grid = colour + rng.normal(0, rng.uniform(8, 60), (cells, cells, 3)) + rng.normal(0, 20, (cells, cells, 1))
    smooth = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
    return cv2.resize(grid.clip(0, 255).astype(np.float32), (size, size), interpolation=smooth)


def _landscape(colours: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Sky over hills, a wall over a table: bands with wavy or straight edges, natural colours half of the time."""
    if rng.random() < 0.5:
        sky, ground = (150, 205, 240), [(120, 190, 90), (200, 180, 140), (150, 150, 155), (175, 130, 90)]
        sky = np.array(sky, np.float32) + rng.uniform(-30, 15, 3)
        lower = np.array(ground[int(rng.integers(4))], np.float32) + rng.uniform(-30, 30, 3)
        colours = np.stack([sky, sky + rng.uniform(0, 40), lower, lower * rng.uniform(0.7, 1.1)])
    image = _stretch(np.repeat(colours[:2, None], 2, axis=1), size)
    x = np.arange(size) / size
    horizon = rng.uniform(0.3, 0.75)
    for band in colours[2:]:
        wave = rng.uniform(0, 0.06) * (rng.random() < 0.6) * np.sin(x * rng.uniform(3, 12) + rng.uniform(0, 6))
        edge = ((horizon + wave) * size).astype(int)
        image = np.where((np.arange(size)[:, None] >= edge)[..., None], band.astype(np.float32), image)
        horizon += rng.uniform(0.08, 0.3)
    return image.astype(np.float32)


def _clutter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = len(image)
    for _ in range(int(rng.integers(1, 6))):
        colour = tuple(float(c) for c in rng.uniform(0, 255, 3))
        if rng.random() < 0.6:
            start, end = (tuple(int(v) for v in rng.integers(-20, size + 20, 2)) for _ in range(2))
            cv2.line(image, start, end, colour, int(rng.integers(1, 5)))
        else:
            corners = rng.integers(-40, size + 40, (int(rng.integers(4, 7)), 2)).astype(np.int32)
            cv2.fillPoly(image, [corners], colour)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 7)) if rng.random() < 0.5 else image

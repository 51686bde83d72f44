"""Drawn textures to put things in front of: bricks, wood, cloth, tiles, stripes, paper."""

from __future__ import annotations

import cv2
import numpy as np


def draw_texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a texture of a random kind: RGB (size, size, 3) float32, 0..255."""
    base = rng.uniform(30, 235, 3) if rng.random() < 0.5 else rng.uniform(50, 225) + rng.uniform(-25, 25, 3)
    other = np.clip(base + rng.choice([-1, 1]) * rng.uniform(12, 90) + rng.uniform(-15, 15, 3), 0, 255)
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    share = _turned(kind, size, rng)[..., None]  # how much of the second colour
    image = base * (1 - share) + other * share
    image = image * (1 + (rng.uniform(0.03, 0.15) * _cloudy(size, 6, rng))[..., None])
    if rng.random() < 0.6:
        image = image + rng.normal(0, rng.uniform(2, 14), (size, size, 1))
    return image.clip(0, 255).astype(np.float32)


def _turned(kind, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a pattern larger than the picture, and cut the picture out of it at an angle."""
    large = int(size * 1.5)
    pattern = kind(large, rng).astype(np.float32)
    angle = rng.normal(0, 8) if rng.random() < 0.6 else rng.uniform(0, 360)
    matrix = cv2.getRotationMatrix2D((large / 2, large / 2), angle, rng.uniform(0.9, 1.6))
    matrix[:, 2] += (size - large) / 2
    return cv2.warpAffine(pattern, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _cloudy(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _bricks(size: int, rng: np.random.Generator) -> np.ndarray:
    height = int(rng.integers(10, 34))
    width, gap = int(height * rng.uniform(1.6, 2.6)), int(rng.integers(1, 4))
    y, x = np.mgrid[:size, :size]
    row = y // height
    joint = ((y % height) < gap) | (((x + (row % 2) * (width // 2)) % width) < gap)
    tone = rng.uniform(0, 0.45, (size // height + 1, size // width + 3))
    return np.where(joint, 1.0, tone[row, (x + (row % 2) * (width // 2)) // width])


def _tiles(size: int, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(12, 50))
    y, x = np.mgrid[:size, :size]
    if rng.random() < 0.5:
        return ((x // side + y // side) % 2).astype(float)
    gap = int(rng.integers(1, 4))
    return ((x % side < gap) | (y % side < gap)).astype(float)


def _wood(size: int, rng: np.random.Generator) -> np.ndarray:
    stretched = cv2.resize(rng.normal(0, 1, (3, 12)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    x = np.arange(size) / size
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(6, 20) * x[None] + rng.uniform(0.3, 1.2) * stretched))
    planks = int(rng.integers(30, 90))
    return np.where((np.arange(size) % planks < 2)[None], 1.0, grain * rng.uniform(0.4, 0.9))


def _cloth(size: int, rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(4, 22)
    y, x = np.mgrid[:size, :size] / period
    if rng.random() < 0.5:
        return 0.25 * (np.sin(2 * np.pi * x) + np.sin(2 * np.pi * y)) + 0.5
    wide = rng.uniform(0.2, 0.6)
    return 0.5 * ((x % 1) < wide) + 0.5 * ((y % 1) < wide)


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    x = np.arange(size) / rng.uniform(6, 40)
    line = (x % 1 < rng.uniform(0.2, 0.7)).astype(float)
    return np.repeat(line[None], size, axis=0)


def _dots(size: int, rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(8, 30)
    y, x = np.mgrid[:size, :size] / period
    return ((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < rng.uniform(0.1, 0.35) ** 2).astype(float)


def _paper(size: int, rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    fibres = np.clip(0.5 + 0.2 * _cloudy(size, int(rng.integers(20, 60)), rng), 0, 1) * 0.4
    if kind < 0.35:  # ruled
        fibres[np.arange(size) % int(rng.integers(10, 24)) < 1] = 1
    elif kind < 0.6:  # squared
        period = int(rng.integers(8, 24))
        fibres[np.arange(size) % period < 1] = 0.9
        fibres[:, np.arange(size) % period < 1] = 0.9
    return fibres


def _blotches(size: int, rng: np.random.Generator) -> np.ndarray:
    fine = sum(_cloudy(size, cells, rng) / k for k, cells in enumerate((4, 9, 20, 45), start=1))
    return np.clip(0.5 + 0.4 * fine, 0, 1)


_KINDS = (_bricks, _tiles, _wood, _cloth, _stripes, _dots, _paper, _blotches)

"""Icons as pixels: every concept in every style, rendered once and kept in a cache folder."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .concepts import Vocabulary
from .icon_sets import OUTLINE_STYLES, load_sets

SIZES = (128, 64, 32)
MARGIN = 2
PAPER = 248
SMALLEST_AREA = 200
"""Drawings that cover fewer pixels at 128 x 128 are left out: broken, or hair-thin."""


def default_cache() -> Path:
    """Return where icons are kept: `$S3SEG_TRAIN_CACHE`, else the user's cache folder."""
    folder = os.environ.get("S3SEG_TRAIN_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "s3seg" / "train_small_sam3"


@dataclass(frozen=True)
class IconAtlas:
    """Premultiplied RGBA icons at three sizes, memory-mapped, and where each concept's are.

    Attributes:
        levels: One array (N, size, size, 4) uint8 for each of `SIZES`.
        places: (concept, style) -> rows of the arrays.
    """

    levels: tuple[np.ndarray, ...]
    places: dict[tuple[int, str], tuple[int, ...]]

    def styles_of(self, concept: int, styles: Iterable[str]) -> list[str]:
        """Return which of `styles` draw the concept."""
        return [style for style in styles if (concept, style) in self.places]

    def at(self, row: int, size: float) -> np.ndarray:
        """Return an icon (K, K, 4) from the smallest level that `size` pixels do not blur."""
        level = max((k for k, s in enumerate(SIZES) if s >= size), default=0)
        return self.levels[level][row]


def load_atlas(vocabulary: Vocabulary, cache: Path | None = None) -> IconAtlas:
    """Open the atlas in the cache folder; fetch and render the icons if it is not there."""
    cv2.setNumThreads(1)  # the data loader forks, and a fork would wait for OpenCV's other threads for ever
    cache = cache or default_cache()
    index = cache / "icons.json"
    names = {icon: i for i, concept in enumerate(vocabulary.concepts) for icon in concept.icons}
    if not index.exists():
        _render_all(sorted(names), cache)
    places = defaultdict(list)
    for row, (icon, style) in enumerate(json.loads(index.read_text())):
        if icon in names:
            places[names[icon], style].append(row)
    levels = tuple(np.load(cache / f"icons_{size}.npy", mmap_mode="r") for size in SIZES)
    return IconAtlas(levels, {place: tuple(rows) for place, rows in places.items()})


def _render_all(icons: list[str], cache: Path) -> None:
    pixels, index = [], []
    for icon_set in load_sets(cache / "npm"):
        style = icon_set.style.name
        for icon in icons:
            for svg in icon_set.svgs(icon):
                drawing = render(svg, SIZES[0], fill=style in OUTLINE_STYLES)
                if drawing is not None:
                    pixels.append(drawing)
                    index.append((icon, style))
    cache.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        shrunk = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) if size < SIZES[0] else p for p in pixels]
        np.save(cache / f"icons_{size}.npy", np.stack(shrunk))
    (cache / "icons.json").write_text(json.dumps(index))  # last: its presence means that all is there


def render(svg: str, size: int, *, fill: bool = False) -> np.ndarray | None:
    """Draw an SVG into a square, trimmed and centred.

    Args:
        svg: The drawing.
        size: Pixels of the square's side.
        fill: Paint what the ink encloses as white paper.

    Returns:
        Premultiplied RGBA (size, size, 4) uint8, or None where there is next to nothing to see.
    """
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    bgra = cv2.imdecode(np.frombuffer(bytes(png), np.uint8), cv2.IMREAD_UNCHANGED)
    if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4:
        return None
    rgba = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)
    rows, columns = np.nonzero(rgba[..., 3] > 20)
    if len(rows) < SMALLEST_AREA * (size / SIZES[0]) ** 2:
        return None
    rgba = rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    drawing = rgba.astype(np.float32)
    drawing[..., :3] *= drawing[..., 3:] / 255
    scale = (size - 2 * MARGIN) / max(drawing.shape[:2])
    height, width = (max(1, round(side * scale)) for side in drawing.shape[:2])
    drawing = cv2.resize(drawing, (width, height), interpolation=cv2.INTER_LINEAR)
    square = np.zeros((size, size, 4), np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = drawing
    square = square.round().clip(0, 255).astype(np.uint8)
    return _fill_with_paper(square) if fill else square


def _fill_with_paper(drawing: np.ndarray) -> np.ndarray:
    alpha = drawing[..., 3]
    contours, _ = cv2.findContours((alpha > 60).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    inside = np.zeros_like(alpha)
    cv2.drawContours(inside, contours, -1, 255, cv2.FILLED)
    solid = np.maximum(alpha, inside)
    rest = (solid - alpha).astype(np.float32)[..., None]
    filled = np.dstack([drawing[..., :3] + rest / 255 * PAPER, solid])
    return filled.clip(0, 255).astype(np.uint8)

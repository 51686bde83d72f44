"""Icons as pixels: every concept in every style, rendered once, kept in one packed file and unpacked for use."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from . import icon_pack
from .concepts import Vocabulary
from .icon_sets import (
    ALL_STYLES,
    EMOJI_STYLES,
    FONT_STYLE,
    GLYPH_SETS,
    HELD_OUT_STYLES,
    OUTLINE_STYLES,
    chosen_drawings,
    emoji_of,
    font_files,
    load_sets,
)  # fmt: skip

SIZES = (128, 64, 32)
MARGIN = 2
PAPER = 248
PACK, INDEX = "icons.pack", "icons.json"
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
    """Open the atlas in the cache folder.

    If it is not there, or was made for other tables, the icons are fetched, rendered and packed into one file,
    `icons.pack`. That file alone is enough on another machine: put it into the cache folder there.
    """
    cv2.setNumThreads(1)  # the data loader forks, and a fork would wait for OpenCV's other threads for ever
    cache = cache or default_cache()
    made_for = fingerprint(vocabulary)
    if _made_for(cache / INDEX) != made_for:
        if icon_pack.made_for(cache / PACK) != made_for:
            _pack_all(vocabulary, cache, made_for)
        _unpack(cache)
    finds = _concepts_by_drawing(vocabulary)
    places = defaultdict(list)
    for row, drawing in enumerate(json.loads((cache / INDEX).read_text())["drawings"]):
        icon, style = drawing
        for concept in finds.get((style, icon), ()):
            places[concept, style].append(row)
    levels = tuple(np.load(cache / f"icons_{size}.npy", mmap_mode="r") for size in SIZES)
    return IconAtlas(levels, {place: tuple(rows) for place, rows in places.items()})


def _concepts_by_drawing(vocabulary: Vocabulary) -> dict[tuple[str, str], list[int]]:
    """(style, icon) -> the concepts that it draws."""
    finds = defaultdict(list)
    emoji = [style.name for style in (*EMOJI_STYLES, *HELD_OUT_STYLES, FONT_STYLE)]
    for i, concept in enumerate(vocabulary.concepts):
        for icon in concept.icons:
            for style in emoji:
                finds[style, icon].append(i)
    index = {name: i for i, name in enumerate(vocabulary.names)}
    for style, drawn in chosen_drawings().items():
        for name, icons in drawn.items():
            for icon in icons:
                finds[style, icon].append(index[name])
    return finds


def fingerprint(vocabulary: Vocabulary) -> str:
    """Return a text that changes with the drawings that are wanted."""
    wanted = [sorted(_concepts_by_drawing(vocabulary)), [(style.name, style.version) for style in ALL_STYLES]]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def _made_for(index: Path) -> str | None:
    return json.loads(index.read_text())["made_for"] if index.exists() else None


def _pack_all(vocabulary: Vocabulary, cache: Path, made_for: str) -> None:
    icons = sorted({icon for concept in vocabulary.concepts for icon in concept.icons})
    exact = {style.name for style in HELD_OUT_STYLES}  # what is only tested on stays as it was rendered
    drawings = ((icon, style, pixels, style in exact) for icon, style, pixels in _render_all(icons, cache / "npm"))
    icon_pack.write(cache / PACK, drawings, made_for=made_for)


def _render_all(icons: list[str], npm: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield icon, style and pixels of every drawing."""
    for icon_set in load_sets(npm):
        for icon in icons:
            for svg in icon_set.svgs(icon):
                yield from _rendered(icon, icon_set.style.name, svg)
    chosen = chosen_drawings()
    for icon_set in load_sets(npm, GLYPH_SETS):
        name = icon_set.style.name
        for icon in sorted({icon for drawn in chosen[name].values() for icon in drawn}):
            svg = icon_set.svg(icon)
            if svg is None:
                raise ValueError(f"drawings.tsv names {icon!r}, which {name} does not have")
            yield from _rendered(icon, name, svg)
    characters = emoji_of(npm)
    for font in font_files(npm):
        for icon in icons:
            drawing = render_glyph(font, characters.get(icon, ""), SIZES[0])
            if drawing is not None:
                yield icon, FONT_STYLE.name, drawing


def _rendered(icon: str, style: str, svg: str) -> Iterator[tuple[str, str, np.ndarray]]:
    drawing = render(svg, SIZES[0], fill=style in OUTLINE_STYLES)
    if drawing is not None:
        yield icon, style, drawing


def _unpack(cache: Path) -> None:
    """Write the packed icons as arrays that can be memory-mapped, at all sizes; replaced files stay open elsewhere."""
    made_for, drawings, pixels = icon_pack.read(cache / PACK)
    for size in SIZES:
        shrunk = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) if size < SIZES[0] else p for p in pixels]
        part = cache / f"icons_{size}.part.npy"
        np.save(part, np.stack(shrunk))
        part.replace(cache / f"icons_{size}.npy")
    index = {"made_for": made_for, "drawings": drawings}
    (cache / INDEX).write_text(json.dumps(index))  # last: its presence means that all is there


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
    return _in_square(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), size, fill=fill)


def render_glyph(font: Path, character: str, size: int) -> np.ndarray | None:
    """Draw a character of a font, black with white paper inside, like `render`; None if the font lacks it."""
    from PIL import Image, ImageDraw, ImageFont

    if len(character) != 1:  # sequences of characters need a shaping engine
        return None
    face = ImageFont.truetype(str(font), size)
    left, top, right, bottom = face.getbbox(character)
    if right - left < size // 8:
        return None
    alpha = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(alpha).text((2 - left, 2 - top), character, fill=255, font=face)
    rgba = np.zeros((*alpha.size[::-1], 4), np.uint8)
    rgba[..., 3] = np.asarray(alpha)
    return _in_square(rgba, size, fill=True)


def _in_square(rgba: np.ndarray, size: int, *, fill: bool) -> np.ndarray | None:
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

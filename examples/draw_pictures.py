"""Draw the demo pictures, in a style that no checkpoint of this project was trained on, with their ground truth.

    python examples/draw_pictures.py            # rewrites examples/pictures/

The icons are Twemoji's (CC BY 4.0, Twitter and contributors); the rest is drawn here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from hotcoco import mask as coco

from train_small_sam3.icon_sets import IconSet, load_sets
from train_small_sam3.icons import default_cache, render
from train_small_sam3.shapes import draw_shape

WIDTH, HEIGHT = 800, 640
FINE = 2  # drawn this many times as large, then shrunk: smooth edges
STYLE = "twemoji"


@dataclass(frozen=True)
class Item:
    """A thing in a picture: (x, y) is the middle of its foot, in pixels; size is its longer side."""

    label: str
    icon: str
    x: float
    y: float
    size: float
    flip: bool = False
    shadow: bool = True


class Picture:
    """A picture in the making, and which instance each pixel belongs to."""

    def __init__(self) -> None:
        self.image = np.zeros((HEIGHT * FINE, WIDTH * FINE, 3), np.float32)
        self.ids = np.zeros((HEIGHT, WIDTH), np.uint16)
        self.labels: list[str] = []

    def gradient(self, top: int, bottom: int, above: tuple[int, ...], below: tuple[int, ...]) -> None:
        """Fill rows `top` to `bottom` with a vertical gradient."""
        t = np.linspace(0, 1, (bottom - top) * FINE, dtype=np.float32)[:, None, None]
        self.image[top * FINE : bottom * FINE] = np.array(above) * (1 - t) + np.array(below) * t

    def polygon(self, points: list[tuple[float, float]] | np.ndarray, colour: tuple[int, ...]) -> None:
        """Fill a polygon."""
        corners = np.round(np.asarray(points) * FINE).astype(np.int32)
        cv2.fillPoly(self.image, [corners], tuple(map(float, colour)))

    def ellipse(self, x: float, y: float, a: float, b: float, colour: tuple[int, ...], alpha: float = 1) -> None:
        """Fill an ellipse, perhaps see-through, with a soft edge."""
        left, top = int((x - a) * FINE) - 12, int((y - b) * FINE) - 12
        height, width = int(2 * b * FINE) + 24, int(2 * a * FINE) + 24
        stamp = np.zeros((height, width), np.float32)
        cv2.ellipse(stamp, (width // 2, height // 2), (int(a * FINE), int(b * FINE)), 0, 0, 360, alpha, cv2.FILLED)
        stamp = cv2.GaussianBlur(stamp, (0, 0), 3)
        self._blend(np.full((height, width, 3), colour, np.float32) * stamp[..., None], stamp, left, top)

    def cast(self, patch: np.ndarray, x: float, y: float) -> None:
        """Darken what lies under a patch whose foot is at (x, y)."""
        alpha = cv2.GaussianBlur(patch[..., 3], (0, 0), 4).astype(np.float32) / 255 * 0.22
        left, top = round(x * FINE - patch.shape[1] / 2), round(y * FINE - patch.shape[0])
        self._blend(np.zeros((*alpha.shape, 3), np.float32), alpha, left, top)

    def add(self, label: str, patch: np.ndarray, x: float, y: float) -> None:
        """Paste premultiplied RGBA (drawn `FINE` times as large) with the middle of its foot at (x, y)."""
        height, width = patch.shape[:2]
        left, top = round(x * FINE - width / 2), round(y * FINE - height)
        alpha = patch[..., 3].astype(np.float32) / 255
        self._blend(patch[..., :3].astype(np.float32), alpha, left, top)
        solid = np.zeros(self.image.shape[:2], np.float32)
        rows, columns, cut = self._window(alpha.shape, left, top)
        solid[rows, columns] = alpha[cut]
        covered = cv2.resize(solid, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) > 0.5
        self.labels.append(label)
        self.ids[covered] = len(self.labels)

    def finish(self) -> np.ndarray:
        """Return RGB (HEIGHT, WIDTH, 3) uint8."""
        small = cv2.resize(self.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        return small.round().clip(0, 255).astype(np.uint8)

    def truth(self) -> list[dict]:
        """Return the label and the visible mask, as COCO RLE, of every instance."""
        masks = [np.asfortranarray(self.ids == i + 1, dtype=np.uint8) for i in range(len(self.labels))]
        return [{"label": label, "segmentation": _rle(m)} for label, m in zip(self.labels, masks, strict=True)]

    def _blend(self, colours: np.ndarray, alpha: np.ndarray, left: int, top: int) -> None:
        rows, columns, cut = self._window(alpha.shape, left, top)
        self.image[rows, columns] = self.image[rows, columns] * (1 - alpha[cut][..., None]) + colours[cut]

    def _window(self, shape: tuple[int, ...], left: int, top: int) -> tuple[slice, slice, tuple[slice, slice]]:
        full_height, full_width = self.image.shape[:2]
        rows = slice(max(0, top), min(full_height, top + shape[0]))
        columns = slice(max(0, left), min(full_width, left + shape[1]))
        return (
            rows,
            columns,
            (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)),
        )


def _rle(mask: np.ndarray) -> dict:
    rle = coco.encode(mask)
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def put(picture: Picture, icons: IconSet, items: list[Item]) -> None:
    """Draw items from the farthest (highest foot) to the nearest, each with its shadow."""
    for item in sorted(items, key=lambda item: item.y):
        (svg, *_) = icons.svgs(item.icon)
        patch = render(svg, int(item.size * FINE))
        if item.flip:
            patch = patch[:, ::-1]
        rows, columns = np.nonzero(patch[..., 3] > 20)
        patch = patch[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        if item.shadow:
            picture.ellipse(item.x, item.y - 3, patch.shape[1] / FINE * 0.42, item.size * 0.055, (20, 40, 30), 0.28)
        picture.add(item.label, np.ascontiguousarray(patch), item.x, item.y)


def park(icons: IconSet) -> Picture:
    """A summer's day: hills, a path and a pond."""
    p = Picture()
    p.gradient(0, 330, (120, 190, 245), (222, 241, 252))
    x = np.arange(0, WIDTH + 1, 8)
    for base, height, phase, colour in ((300, 38, 0.0, (152, 208, 140)), (325, 26, 2.1, (128, 194, 112))):
        ridge = base - height * np.sin(x / 150 + phase)
        p.polygon([*zip(x, ridge, strict=True), (WIDTH, 420), (0, 420)], colour)
    p.gradient(340, HEIGHT, (140, 204, 100), (86, 160, 66))
    y = np.arange(340, HEIGHT + 1, 6)
    t = (y - 340) / 300
    middle, half = 420 + 90 * np.sin(t * 3.2), 14 + 80 * t**1.3
    path = [*zip(middle - half, y, strict=True), *reversed(list(zip(middle + half, y, strict=True)))]
    p.polygon(path, (226, 203, 160))
    p.ellipse(185, 580, 178, 62, (92, 172, 214))
    p.ellipse(185, 576, 163, 52, (128, 198, 232))
    put(p, icons, [
        Item("sun", "sun-with-face", 690, 165, 150, shadow=False), Item("cloud", "cloud", 330, 172, 210, shadow=False),
        Item("tree", "deciduous-tree", 130, 390, 230), Item("tree", "deciduous-tree", 660, 415, 225),
        Item("duck", "duck", 110, 560, 150, shadow=False, flip=True), Item("duck", "duck", 275, 615, 150, shadow=False),
        Item("dog", "dog", 510, 600, 185),
    ])  # fmt: skip
    return p


def kitchen_table(icons: IconSet) -> Picture:
    """Breakfast for two: striped wallpaper and a checked cloth."""
    p = Picture()
    p.gradient(0, 270, (250, 238, 214), (246, 226, 196))
    for left in range(0, WIDTH, 64):
        p.polygon([(left, 0), (left + 32, 0), (left + 32, 270), (left, 270)], (243, 224, 192))
    for left in (60, 450):
        p.polygon(_box(left, 24, 290, 206), (255, 252, 244))
        p.polygon(_box(left + 12, 36, 266, 182), (176, 220, 246))
        p.polygon(_box(left + 12, 160, 266, 58), (166, 212, 134))
        p.polygon(_box(left + 140, 36, 10, 182), (255, 252, 244))
        p.polygon(_box(left - 14, 226, 318, 16), (236, 222, 196))
        for outer, inner in ((left - 22, left + 62), (left + 312, left + 228)):
            p.polygon([(outer, 12), (inner, 12), ((outer + inner) / 2, 120), (outer, 236)], (238, 158, 140))
        p.polygon(_box(left - 30, 8, 350, 10), (176, 128, 88))
    p.gradient(250, 270, (222, 196, 160), (206, 178, 140))
    p.gradient(270, HEIGHT, (188, 128, 78), (156, 98, 56))
    for board in range(330, HEIGHT, 74):
        p.polygon([(0, board), (WIDTH, board), (WIDTH, board + 3), (0, board + 3)], (140, 86, 48))
    cloth = [(110, 318), (690, 318), (775, HEIGHT), (25, HEIGHT)]
    p.polygon(cloth, (248, 248, 244))
    for row in range(8):
        for column in range(12):
            if (row + column) % 2:
                p.polygon(_square(cloth, row / 8, column / 12, 1 / 8, 1 / 12), (214, 228, 240))
    put(p, icons, [
        Item("bread", "bread", 140, 400, 180), Item("cupcake", "cupcake", 400, 390, 180),
        Item("grapes", "grapes", 660, 405, 175), Item("apple", "red-apple", 120, 615, 165),
        Item("apple", "red-apple", 300, 622, 165), Item("coffee", "hot-beverage", 480, 610, 175),
        Item("strawberry", "strawberry", 680, 620, 160),
    ])  # fmt: skip
    return p


def street(icons: IconSet) -> Picture:
    """A street on the edge of a town."""
    p = Picture()
    p.gradient(0, 300, (146, 200, 242), (236, 242, 244))
    blocks = [
        (30, 120, 95),
        (140, 165, 80),
        (240, 100, 70),
        (330, 150, 110),
        (470, 90, 75),
        (575, 140, 95),
        (690, 110, 100),
    ]
    for left, top, width in blocks:
        p.polygon([(left, top), (left + width, top), (left + width, 300), (left, 300)], (186, 206, 222))
        for window_y in range(top + 14, 280, 24):
            for window_x in range(left + 12, left + width - 16, 24):
                p.polygon(_box(window_x, window_y, 10, 12), (214, 228, 238))
    p.gradient(296, 352, (150, 204, 116), (124, 184, 96))
    p.gradient(352, 396, (214, 210, 202), (196, 192, 184))
    p.gradient(396, 590, (108, 112, 120), (84, 88, 96))
    p.polygon(_box(0, 396, WIDTH, 7), (236, 234, 226))
    for left in range(-30, WIDTH, 150):
        p.polygon([(left + 14, 486), (left + 90, 486), (left + 84, 498), (left + 6, 498)], (244, 240, 224))
    p.gradient(590, HEIGHT, (206, 202, 194), (186, 182, 172))
    put(p, icons, [
        Item("cloud", "cloud", 560, 130, 220, shadow=False),
        Item("house", "house", 130, 376, 210), Item("tree", "deciduous-tree", 400, 378, 182),
        Item("house", "house", 650, 376, 210), Item("car", "automobile", 150, 500, 180),
        Item("bus", "bus", 520, 505, 210), Item("car", "automobile", 620, 615, 190),
        Item("bicycle", "bicycle", 330, 622, 180), Item("cat", "cat", 110, 634, 150),
    ])  # fmt: skip
    return p


def shapes(_: IconSet) -> Picture:
    """A sheet of paper with shapes on it."""
    p = Picture()
    p.gradient(0, HEIGHT, (252, 250, 244), (246, 242, 232))
    for x in range(0, WIDTH, 40):
        p.polygon(_box(x, 0, 1, HEIGHT), (228, 234, 240))
    for y in range(0, HEIGHT, 40):
        p.polygon(_box(0, y, WIDTH, 1), (228, 234, 240))
    rng = np.random.default_rng(7)
    rows = [
        ["solid red circle", "solid blue star", "striped green square", "solid orange triangle"],
        ["solid blue star", "solid purple ring", "solid red circle", "solid cyan cross"],
        ["solid yellow diamond", "dotted red circle", "solid pink hexagon", "striped blue star"],
    ]
    for row, names in enumerate(rows):
        for column, name in enumerate(names):
            pattern, colour, shape = name.split()
            patch = draw_shape(shape, colour, pattern, radius=int(72 * FINE), rng=rng)
            x, y = 115 + column * 190 + rng.uniform(-12, 12), 188 + row * 205 + rng.uniform(-10, 10)
            p.cast(patch, x + 4, y + 5)
            p.add(name.removeprefix("solid "), patch, x, y)
    return p


PICTURES: dict[str, Callable[[IconSet], Picture]] = {
    "park": park, "kitchen_table": kitchen_table, "street": street, "shapes": shapes,
}  # fmt: skip


def _box(left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def _square(
    corners: list[tuple[float, float]], v: float, u: float, height: float, width: float
) -> list[tuple[float, float]]:
    """One cell of a chessboard in a trapezium given clockwise from the upper left."""
    a, b, c, d = (np.array(corner, float) for corner in corners)

    def at(u: float, v: float) -> tuple[float, float]:
        x, y = (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v
        return float(x), float(y)

    return [at(u, v), at(u + width, v), at(u + width, v + height), at(u, v + height)]


def main() -> None:
    """Redraw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("pictures"))
    parser.add_argument("--cache", type=Path, default=None, help="where the icons are kept")
    args = parser.parse_args()
    icons = next(s for s in load_sets((args.cache or default_cache()) / "npm") if s.style.name == STYLE)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        picture = draw(icons)
        pixels = cv2.cvtColor(picture.finish(), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(args.out / f"{name}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        truth = {"size": [HEIGHT, WIDTH], "instances": picture.truth()}
        (args.out / f"{name}.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Labels of instances on a picture: small rounded chips that stay readable, inside the picture and apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from s3seg.results.masks import Box
from s3seg.results.palette import RGB, text_color

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Fonts that systems ship with many scripts, tried in turn for prompts that Pillow's own font cannot write.
_FALLBACK_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NanumGothic.ttf",
    "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf",
    "malgun.ttf",
    "msyh.ttc",
    "segoeui.ttf",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
)


_LONGEST_PROMPT = 120  # characters; no label is wide enough for more
_MOST_HIDDEN = 0.8  # of instances, in whole ones; a label that hides more is left out


@dataclass(frozen=True, slots=True)
class Chip:
    """A label to write: its prompt (may be empty) and score, the box it belongs to (pixels), its colour."""

    prompt: str
    score: float
    box: Box
    color: RGB


@dataclass(frozen=True, slots=True)
class _Layout:
    font: _Font
    em: float

    @property
    def pad(self) -> int:
        return round(0.42 * self.em)

    @property
    def height(self) -> int:
        return round(1.5 * self.em)

    def width(self, text: str) -> int:
        return math.ceil(self.font.getlength(text)) + 2 * self.pad


def draw_chips(canvas: Image.Image, chips: Sequence[Chip], *, gap: float) -> None:
    """Write labels on the canvas, the first ones having the first choice of place.

    Args:
        canvas: RGB, changed in place.
        chips: in order of importance.
        gap: pixels between a label and its box.
    """
    em = max(11.0, 0.0175 * math.sqrt(canvas.width * canvas.height))
    if len(chips) > 30:
        em = max(10.0, 0.75 * em)
    fonts: dict[str, _Font] = {}
    boxes = np.array([chip.box for chip in chips]).reshape(-1, 4)
    placed: list[Box] = []
    for chip in chips:
        prompt = "".join(c for c in " ".join(chip.prompt[:_LONGEST_PROMPT].split()) if c.isprintable())
        if prompt not in fonts:
            fonts[prompt] = _font_for(prompt, em)
        layout = _Layout(fonts[prompt], em)
        text = _fitting_text(prompt, f"{chip.score:.2f}", layout, canvas.width)
        if text is None or layout.height > canvas.height:
            continue
        size = (layout.width(" ".join(text).strip()), layout.height)
        place = _best_place(_places(chip.box, size, canvas.size, gap), placed, boxes)
        if place is not None:
            placed.append(place)
            _draw_chip(canvas, place, text, chip.color, layout)


def _fitting_text(prompt: str, score: str, layout: _Layout, width: int) -> tuple[str, str] | None:
    """Prompt and score, the prompt shortened to fit; None when not even the score fits."""
    limit = min(width, max(26 * layout.em, 0.5 * width))
    if layout.width(score) > width:
        return None
    short = prompt
    while short and layout.width(f"{short} {score}") > limit:
        short = short.rstrip("…")[:-1].rstrip()
        short = f"{short}…" if short else ""
    return short, score


def _places(box: Box, size: tuple[int, int], picture: tuple[int, int], gap: float) -> Iterator[Box]:
    """Where a chip may lie, best first: above its box, inside it, below, beside; always in the picture."""
    x1, y1, x2, y2 = box
    width, height = size
    gap = round(gap)
    candidates = [(x1 - gap, y1 - height - gap)] if y1 - height - gap >= 0 else []
    if width * height < 0.3 * (x2 - x1) * (y2 - y1):
        candidates += [(x1 + 2 * gap, y1 + 2 * gap), (x2 - width - 2 * gap, y1 + 2 * gap)]
        candidates += [((x1 + x2 - width) / 2, (y1 + y2 - height) / 2)]
    candidates += [(x1 - gap, y2 + gap)] if y2 + gap + height <= picture[1] else []
    candidates += [(x2 - width + gap, y1 - height - gap), (x2 + gap, y1), (x1 - width - gap, y1), (x1, y1)]
    for x, y in candidates:
        left = min(max(round(x), 0), picture[0] - width)
        top = min(max(round(y), 0), picture[1] - height)
        yield left, top, left + width, top + height


def _best_place(places: Iterable[Box], placed: Sequence[Box], boxes: np.ndarray) -> Box | None:
    """The place that hides least of the instances, early ones preferred; None when all hide too much."""
    best, lowest_cost = None, _MOST_HIDDEN
    taken = np.array(placed).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for rank, place in enumerate(places):
        cost = 0.04 * rank + float(np.sum(_overlap(place, boxes) / areas))
        if cost < lowest_cost and not np.any(_overlap(place, taken)):
            best, lowest_cost = place, cost
    return best


def _overlap(place: Box, others: np.ndarray) -> np.ndarray:
    """Pixels that a place shares with each of the others, (N,)."""
    width = np.minimum(place[2], others[:, 2]) - np.maximum(place[0], others[:, 0])
    height = np.minimum(place[3], others[:, 3]) - np.maximum(place[1], others[:, 1])
    return width.clip(0) * height.clip(0)


def _draw_chip(canvas: Image.Image, place: Box, text: tuple[str, str], color: RGB, layout: _Layout) -> None:
    left, top, right, bottom = (int(side) for side in place)
    large = Image.new("L", (4 * (right - left), 4 * (bottom - top)))  # drawn large, for smooth corners
    corner = 4 * 0.34 * layout.em
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), corner, fill=240)
    canvas.paste(color, (left, top, right, bottom), large.resize((right - left, bottom - top), Image.Resampling.BOX))
    ink = text_color(color)
    pen = ImageDraw.Draw(canvas)
    baseline = top + layout.height / 2 + 0.36 * layout.em
    x = left + layout.pad
    prompt, score = text
    if prompt:
        pen.text((x, baseline), prompt, fill=ink, font=layout.font, anchor="ls")
        x += layout.font.getlength(f"{prompt} ")
    faint = tuple(round(0.78 * i + 0.22 * c) for i, c in zip(ink, color, strict=True)) if prompt else ink
    pen.text((x, baseline), score, fill=faint, font=layout.font, anchor="ls")


def _font_for(text: str, em: float) -> _Font:
    """Pillow's own font, or the system font that lacks fewer of the text's characters."""
    best, lacking = ImageFont.load_default(size=em), _lacking(ImageFont.load_default(size=16), text)
    for name in _FALLBACK_FONTS:
        if not lacking:
            break
        try:
            count = _lacking(ImageFont.truetype(name, size=16), text)
            if count < lacking:
                best, lacking = ImageFont.truetype(name, size=em), count
        except OSError:
            continue  # not on this machine
    return best


def _lacking(font: _Font, text: str) -> int:
    """How many characters a font of size 16 draws as its sign for a missing one."""

    def drawn(character: str) -> bytes:
        canvas = Image.new("L", (32, 32))
        ImageDraw.Draw(canvas).text((0, 0), character, fill=255, font=font)
        return canvas.tobytes()

    missing = drawn("\U0010ffff")
    return sum(drawn(character) == missing for character in set(text) - {" "})

"""Draw the labels of instances: readable, inside the picture, and not over each other."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from s3seg.results.masks import Box
from s3seg.results.palette import RGB, text_color

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

# System fonts that cover many scripts, tried in turn for prompts that Pillow's own font cannot draw.
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


_MAX_PROMPT_LENGTH = 120  # characters; no label is wide enough for more
_VARIATION_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # choose the form of the sign before, as in emoji
_MAX_HIDDEN = 0.8  # a label that covers more than this, summed over the instances as shares of their boxes, is left out


@dataclass(frozen=True, slots=True)
class Label:
    """A label to draw: prompt (may be empty) and score, number and box of its instance in pixels, and its colour.

    The number is drawn where no font has the letters of the prompt.
    """

    prompt: str
    score: float
    box: Box
    color: RGB
    number: int = 1


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


def draw_labels(
    canvas: Image.Image,
    labels: Sequence[Label],
    *,
    gap: float,
    font: ImageFont.FreeTypeFont | None = None,
    font_size: float | None = None,
) -> None:
    """Draw labels on the canvas; earlier ones get the better positions.

    Args:
        canvas: RGB, changed in place.
        labels: the most important first.
        gap: pixels between a label and its box.
        font: for all labels; None chooses one that has the letters of each.
        font_size: in pixels; None chooses one by the size of the picture.

    Warns:
        UserWarning: no font on this machine has the letters of a prompt, so its labels are numbers.
    """
    em = font_size or _font_size(canvas, len(labels))
    own = None if font is None else font.font_variant(size=em)
    fonts: dict[str, tuple[_Font, str]] = {}
    undrawable: list[str] = []
    boxes = np.array([label.box for label in labels]).reshape(-1, 4)
    placed: list[Box] = []
    for label in labels:
        line = " ".join(label.prompt[:_MAX_PROMPT_LENGTH].split())
        prompt = "".join(c for c in line if c.isprintable() and c not in _VARIATION_SELECTORS)
        if prompt not in fonts:
            fonts[prompt] = _font_for(prompt, em) if own is None else (own, prompt)
            if prompt and not fonts[prompt][1]:
                undrawable.append(prompt)
        chosen, drawable = fonts[prompt]
        layout = _Layout(chosen, em)
        name = drawable or (f"#{label.number}" if prompt else "")
        text = _fitting_text(name, f"{label.score:.2f}", layout, canvas.width)
        if text is None or layout.height > canvas.height:
            continue
        size = (layout.width(" ".join(text).strip()), layout.height)
        place = _best_place(_places(label.box, size, canvas.size, gap), placed, boxes)
        if place is not None:
            placed.append(place)
            _draw_label(canvas, place, text, label.color, layout)
    if undrawable:
        warnings.warn(
            f"no font on this machine can draw {', '.join(map(repr, undrawable)):.200}, so these labels are the "
            "numbers of the instances; install a font with these letters, such as Noto Sans CJK, or use labels=False",
            stacklevel=3,
        )


def _font_size(canvas: Image.Image, labels: int) -> float:
    em = max(11.0, 0.0175 * math.sqrt(canvas.width * canvas.height))
    return max(10.0, 0.75 * em) if labels > 30 else em


def _fitting_text(prompt: str, score: str, layout: _Layout, width: int) -> tuple[str, str] | None:
    """Return prompt and score, the prompt shortened to fit; None if not even the score fits."""
    limit = min(width, max(26 * layout.em, 0.5 * width))
    if layout.width(score) > width:
        return None
    short = prompt
    while short and layout.width(f"{short} {score}") > limit:
        short = short.rstrip("…")[:-1].rstrip()
        short = f"{short}…" if short else ""
    return short, score


def _places(box: Box, size: tuple[int, int], picture: tuple[int, int], gap: float) -> Iterator[Box]:
    """Yield positions for a label, best first: above its box, inside, below, beside; always inside the picture."""
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
    """Return the position that covers least of the instances, early ones preferred; None if all cover too much."""
    best, lowest_cost = None, _MAX_HIDDEN
    taken = np.array(placed).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for rank, place in enumerate(places):
        cost = 0.04 * rank + float(np.sum(_overlap(place, boxes) / areas))
        if cost < lowest_cost and not np.any(_overlap(place, taken)):
            best, lowest_cost = place, cost
    return best


def _overlap(place: Box, others: np.ndarray) -> np.ndarray:
    """Return the area that a box shares with each of the others, in pixels, (N,)."""
    width = np.minimum(place[2], others[:, 2]) - np.maximum(place[0], others[:, 0])
    height = np.minimum(place[3], others[:, 3]) - np.maximum(place[1], others[:, 1])
    return width.clip(0) * height.clip(0)


def _draw_label(canvas: Image.Image, place: Box, text: tuple[str, str], color: RGB, layout: _Layout) -> None:
    left, top, right, bottom = (int(side) for side in place)
    large = Image.new("L", (4 * (right - left), 4 * (bottom - top)))  # drawn at four times the size, for smooth corners
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


def _font_for(text: str, em: float) -> tuple[_Font, str]:
    """Choose Pillow's own font, or the system font that lacks fewer characters of the text.

    Returns:
        The font, and what it can draw of the text: the text without signs that it lacks, such as emoji; nothing if it
        lacks a letter.
    """
    best, lacking = ImageFont.load_default(size=em), _lacking(ImageFont.load_default(size=16), text)
    for name in _FALLBACK_FONTS:
        if not lacking:
            break
        try:
            missing = _lacking(ImageFont.truetype(name, size=16), text)
            if len(missing) < len(lacking):
                best, lacking = ImageFont.truetype(name, size=em), missing
        except OSError:
            continue  # not on this machine
    if any(unicodedata.category(character)[0] in "LMN" for character in lacking):
        return best, ""
    return best, " ".join("".join(character for character in text if character not in lacking).split())


def _lacking(font: _Font, text: str) -> set[str]:
    """Return the characters that a font of size 16 draws as its placeholder for missing ones.

    Those of scripts that need shaping or run from right to left count as missing where Pillow cannot do that.
    """

    def drawn(character: str) -> bytes:
        canvas = Image.new("L", (32, 32))
        ImageDraw.Draw(canvas).text((0, 0), character, fill=255, font=font)
        return canvas.tobytes()

    missing = drawn("\U0010ffff")
    shapes = features.check("raqm") and features.check("fribidi")
    return {
        character
        for character in set(text) - {" "}
        if drawn(character) == missing or (_needs_shaping(character) and not shapes)
    }


def _needs_shaping(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.category(character) in ("Mn", "Mc")

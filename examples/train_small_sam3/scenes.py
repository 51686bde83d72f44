"""Draw scenes whose every instance is known to the pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from .backgrounds import draw_background
from .concepts import Vocabulary
from .icon_sets import EXAMINED_STYLES, MONOCHROME, ONE_HUE, SEEN_STYLES
from .icons import IconAtlas
from .photographed import photographed
from .restyle import recolour_glyph, restyle, restyle_harshly, tint, turn_hue
from .shapes import COLOUR_NAMES, COLOURS, HELD_OUT_COMBINATIONS, PATTERNS, SHAPES, draw_shape

MOST_THINGS = 10
"""Most things in a scene: a fixed number, so that batches always have the same shapes."""
SMALLEST_INSTANCE = 60
"""Instances with fewer visible pixels (at 224 x 224) are neither asked for nor counted."""


@dataclass(frozen=True, slots=True)
class Thing:
    """What an instance is: a concept drawn in a style, or a shape."""

    concept: int | None = None
    style: str = ""
    shape: str | None = None
    colour: str | None = None
    """Known for shapes and tinted icons, None for an icon in its own colours."""
    pattern: str | None = None


@dataclass(frozen=True)
class Scene:
    """A picture and its ground truth.

    Attributes:
        image: RGB (S, S, 3) uint8.
        ids: Which thing is visible at each pixel, (S, S) uint8: 0 for none, k for `things[k - 1]`.
        things: What was drawn, from back to front.
    """

    image: np.ndarray
    ids: np.ndarray
    things: tuple[Thing, ...]

    def mask(self, index: int) -> np.ndarray:
        """Return the visible pixels of a thing, (S, S) bool."""
        return self.ids == index + 1

    @property
    def smallest(self) -> float:
        """Return the area, in pixels, below which an instance does not count."""
        return SMALLEST_INSTANCE * (len(self.ids) / 224) ** 2


@dataclass(frozen=True)
class Recipe:
    """What kind of scenes to draw.

    Attributes:
        size: Side of the picture, pixels.
        styles: Names of the drawing styles to use.
        shapes: Share of things that are plain shapes, 0..1.
        concepts: Restrict the icons to these concepts.
        most: Most things in an ordinary scene.
        tinted: Share of the icons that allow it which are painted in a colour.
        restyled: Share of icons that are redrawn in a style of chance.
        jitter: Vary the tone of icons, and tone, blur and noise of the whole picture.
        squashed: Share of scenes whose icons are all stretched alike, as when a wide picture becomes a square.
        photographs: Share of scenes in front of a patch of a photograph.
        textures: Share of scenes in front of a drawn texture.
        one_style: Share of scenes whose icons are all restyled in the same way.
        harsh: Share of the restyled icons of which little but the shape is left.
        photographed: Share of scenes that look like a photograph of a drawing.
        paint_more: Also paint things that are odd in some colours.
        held_out: Show held-out combinations of colour and shape: "never", "allowed", or "always" one.
        finished: Whether what changes the whole picture happens here: tone, blur, noise, and what makes a photograph
            of it. Training does that to each view of a scene, where the network runs (`views.py`).
    """

    size: int = 256
    styles: tuple[str, ...] = EXAMINED_STYLES
    shapes: float = 0.3
    concepts: tuple[int, ...] | None = None
    most: int = 8
    tinted: float = 0.25
    restyled: float = 0.45
    jitter: bool = True
    squashed: float = 0.4
    photographs: float = 0.12
    textures: float = 0.0
    one_style: float = 0.0
    harsh: float = 0.0
    photographed: float = 0.0
    paint_more: bool = False
    held_out: str = "never"
    finished: bool = True


TRAINING = Recipe(
    styles=tuple(style.name for style in SEEN_STYLES),
    tinted=0.5, restyled=0.6, harsh=0.3, one_style=0.5, photographs=0.14, textures=0.13, photographed=0.15,
    paint_more=True,
)  # fmt: skip
"""What training draws. The evaluation has recipes of its own, so that its scenes stay the same when this changes."""


@dataclass
class _Canvas:
    """A scene in the making."""

    image: np.ndarray
    ids: np.ndarray
    things: list[Thing] = field(default_factory=list)
    drawn_area: list[int] = field(default_factory=list)
    visible_area: list[int] = field(default_factory=list)


def draw_scene(seed: int, recipe: Recipe, vocabulary: Vocabulary, atlas: IconAtlas) -> Scene:
    """Draw one scene; the same seed and recipe give the same scene."""
    rng = np.random.default_rng(seed)
    size = recipe.size
    background = draw_background(
        size, rng, photographs=recipe.photographs, textures=recipe.textures, same_grain=not recipe.finished
    )  # fmt: skip
    canvas = _Canvas(background, np.zeros((size, size), np.uint8))
    count = int(rng.integers(1, recipe.most + 1)) + (int(rng.integers(0, 3)) if rng.random() < 0.2 else 0)
    kinds = _choose_kinds(count, recipe, vocabulary, atlas, rng)
    crowd = 1.3 if count <= 2 else 1.15 if count <= 3 else 1.0 if count <= 5 else 0.88 if count <= 8 else 0.75
    scale = size / 224 * crowd * rng.uniform(0.72, 1.25)
    aspect = math.exp(rng.uniform(-0.4, 0.25)) if rng.random() < recipe.squashed else 1.0
    style_seed = int(rng.integers(1 << 60)) if recipe.one_style and rng.random() < recipe.one_style else None
    for i in range(count if kinds else 0):
        kind = kinds[i] if i < len(kinds) else kinds[int(rng.integers(len(kinds)))]
        extent = float(np.clip(scale * rng.uniform(38, 84), 26 * size / 224, 0.62 * size))
        thing, patch, turn = _draw_thing(kind, extent, recipe, atlas, rng, style_seed)
        _place(canvas, thing, patch, extent=extent, turn=turn, aspect=aspect, rng=rng, jitter=recipe.jitter)
    image, ids = canvas.image, canvas.ids
    if recipe.finished:
        image = _photographic(image, rng) if recipe.jitter else image
        if recipe.photographed and rng.random() < recipe.photographed:
            image, ids = photographed(image, ids, rng)
    return Scene(image.clip(0, 255).astype(np.uint8), ids, tuple(canvas.things))


def _choose_kinds(
    count: int, recipe: Recipe, vocabulary: Vocabulary, atlas: IconAtlas, rng: np.random.Generator
) -> list[Thing]:
    kinds: list[Thing] = []
    drawable = recipe.concepts if recipe.concepts is not None else range(len(vocabulary))
    for i in range(int(rng.integers(1, count + 1))):
        if rng.random() < recipe.shapes:
            colour, shape = _colour_and_shape(recipe.held_out, first=i == 0, rng=rng)
            kinds.append(Thing(shape=shape, colour=colour))
            continue
        choices = drawable
        if kinds and kinds[-1].concept is not None and rng.random() < 0.25:  # something of the same group
            group = vocabulary.groups[vocabulary.concepts[kinds[-1].concept].group]
            choices = [c for c in group if c in set(drawable)] or drawable
        concept = int(choices[int(rng.integers(len(choices)))])
        if any(kind.concept == concept for kind in kinds):
            continue
        row = vocabulary.concepts[concept]
        painted = (row.paintable if recipe.paint_more else row.tint) and rng.random() < recipe.tinted
        colour = COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))] if painted else None
        kinds.append(Thing(concept=concept, colour=colour))
        if painted and rng.random() < 0.5:  # the same thing in another colour beside it
            kinds.append(replace(kinds[-1], colour=COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))]))
    return [k for k in kinds if k.concept is None or atlas.styles_of(k.concept, recipe.styles)]


def _colour_and_shape(held_out: str, *, first: bool, rng: np.random.Generator) -> tuple[str, str]:
    while True:
        pair = COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))], SHAPES[int(rng.integers(len(SHAPES)))]
        if held_out == "always" and first:
            if pair in HELD_OUT_COMBINATIONS:
                return pair
        elif held_out != "never" or pair not in HELD_OUT_COMBINATIONS:
            return pair


def _draw_thing(
    kind: Thing, extent: float, recipe: Recipe, atlas: IconAtlas, rng: np.random.Generator, style_seed: int | None
) -> tuple[Thing, np.ndarray, float]:
    """Return the thing, its premultiplied RGBA patch (K, K, 4), and by how many degrees to turn it.

    With a `style_seed`, all icons of a scene are restyled by the same choices.
    """
    if kind.concept is None:
        pattern = PATTERNS[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
        thing = replace(kind, pattern=pattern)
        patch = draw_shape(kind.shape, kind.colour, pattern, radius=max(12, int(extent * 0.85)), rng=rng)
        turn = rng.normal(0, 15) if rng.random() < 0.7 else rng.uniform(-180, 180)
        if kind.shape in {"square", "diamond"}:  # turned by 45 degrees, one becomes the other
            turn = float(np.clip(turn, -20, 20))
        return thing, patch, turn
    styles = atlas.styles_of(kind.concept, recipe.styles)
    style = styles[int(rng.integers(len(styles)))]
    rows = atlas.places[kind.concept, style]
    patch = atlas.at(rows[int(rng.integers(len(rows)))], extent)
    style_rng = rng if style_seed is None else np.random.default_rng(style_seed)
    if style in MONOCHROME:
        patch = recolour_glyph(patch, style_rng, kind.colour)
    elif kind.colour is not None:
        patch = tint(patch, kind.colour, rng)
    elif style in ONE_HUE:
        patch = turn_hue(patch, style_rng)
    if style_rng.random() < recipe.restyled:
        if recipe.harsh and kind.colour is None and style_rng.random() < recipe.harsh:
            patch = restyle_harshly(patch, style_rng)
        else:
            patch = restyle(patch, style_rng, keep_hue=kind.colour is not None)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    turn = rng.normal(0, 12) if rng.random() < 0.85 else rng.uniform(-60, 60)
    return replace(kind, style=style), patch, turn


def _place(
    canvas: _Canvas, thing: Thing, patch: np.ndarray,
    *, extent: float, turn: float, aspect: float, rng: np.random.Generator, jitter: bool,
) -> None:  # fmt: skip
    """Put a patch where it hides no other thing too much; give up after some tries."""
    size, is_icon = len(canvas.ids), thing.concept is not None
    extent = extent if is_icon else extent * 0.85
    stretch = aspect * rng.uniform(0.88, 1.12) if is_icon else 1.0
    for attempt in range(12):
        x, y = rng.uniform(extent * 0.35, size - extent * 0.35, 2)
        pasted, window = _warp(patch, x=x, y=y, extent=extent, turn=turn, stretch=stretch, size=size)
        covered = pasted[..., 3] > 127
        if covered.sum() < 80 * (size / 224) ** 2:
            continue
        area = canvas.image[window]
        hidden = np.bincount(canvas.ids[window][covered], minlength=len(canvas.things) + 1)[1:]
        if _hides_too_much(canvas, hidden, limit=0.45 if attempt < 6 else 0.25):
            continue
        if not is_icon and attempt < 8:  # a shape must stand out from what is behind it
            behind = np.array(cv2.mean(area, covered.view(np.uint8))[:3])
            if np.abs(behind - np.array(COLOURS[thing.colour])).max() < 45:
                continue
        for other, pixels in enumerate(hidden):
            canvas.visible_area[other] -= int(pixels)
        canvas.ids[window][covered] = len(canvas.things) + 1
        if rng.random() < 0.25:
            shadow = cv2.GaussianBlur(pasted[..., 3], (0, 0), 4).astype(np.float32) / 255 * 0.45
            area *= 1 - shadow[..., None]
        colours = pasted[..., :3].astype(np.float32)
        if jitter and is_icon:
            colours *= rng.uniform(0.85, 1.1, 3).astype(np.float32)
        area *= 1 - pasted[..., 3:].astype(np.float32) / 255
        area += colours
        canvas.things.append(thing)
        canvas.drawn_area.append(int(covered.sum()))
        canvas.visible_area.append(int(covered.sum()))
        return


def _warp(
    patch: np.ndarray, *, x: float, y: float, extent: float, turn: float, stretch: float, size: int
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Scale and turn a patch about (x, y); return its part within the picture, and that part's place."""
    side, angle = len(patch), math.radians(turn)
    reach = int(extent * 0.76 * max(stretch, 1 / stretch) ** 0.5) + 2
    left, top = int(x) - reach, int(y) - reach
    kx, ky = extent / side * stretch**0.5, extent / side / stretch**0.5
    linear = np.array([[kx], [ky]]) * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    shift = np.array([x - left, y - top]) - linear @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([linear, shift]).astype(np.float32)
    smooth = cv2.INTER_LINEAR if extent / side > 0.45 else cv2.INTER_AREA
    pasted = cv2.warpAffine(patch, matrix, (2 * reach, 2 * reach), flags=smooth)
    rows = slice(max(0, top), min(size, top + 2 * reach))
    columns = slice(max(0, left), min(size, left + 2 * reach))
    inside = pasted[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return inside, (rows, columns)


def _hides_too_much(canvas: _Canvas, hidden: np.ndarray, limit: float) -> bool:
    return any(
        pixels > 0 and visible - pixels < (1 - limit) * drawn
        for pixels, visible, drawn in zip(hidden, canvas.visible_area, canvas.drawn_area, strict=True)
    )


def _photographic(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        image = (image - 128) * rng.uniform(0.8, 1.15) + 128 + rng.uniform(-18, 18)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(2, 9), image.shape)
    return image

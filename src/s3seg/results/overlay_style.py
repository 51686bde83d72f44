"""How an overlay looks: colours, lines, labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np
from PIL import ImageColor, ImageFont

from s3seg.errors import InvalidRequestError
from s3seg.results.palette import RGB

Color: TypeAlias = "str | Sequence[int]"
"""A name or code that Pillow knows ("red", "#3366cc"), or three numbers 0..255."""
Font: TypeAlias = "str | os.PathLike[str] | ImageFont.FreeTypeFont"
Chosen: TypeAlias = "list[RGB] | dict[str, RGB]"


class OverlayStyle(TypedDict, total=False):
    """The keyword arguments of every ``overlay``; all may be left out.

    Attributes:
        color_by: a colour for each "instance" or for each "prompt"; "auto" is by prompt for several results.
        colors: a colour; a list of them, which is repeated if it is too short; or a colour for each prompt, by
            its text. By default colours that are easy to tell apart.
        opacity: of the fill, 0..1; by default 0.42.
        outlines: whether to draw outlines, or a colour for all; by default each has the colour of its instance.
        line_width: of outlines in pixels. By default it grows with the picture, and small instances have thin lines.
        labels: whether to write prompt and score on each instance.
        font: the file of a TrueType or OpenType font for the labels, or a font of Pillow. By default one that has
            the letters of the prompt.
        font_size: of the labels in pixels; by default that of a font of Pillow, or one that grows with the picture.
    """

    color_by: Literal["auto", "instance", "prompt"]
    colors: Color | Sequence[Color] | Mapping[str, Color] | None
    opacity: float
    outlines: bool | Color
    line_width: float | None
    labels: bool
    font: Font | None
    font_size: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """A checked `OverlayStyle`: colours are RGB, an empty list without a choice; ``outline`` is False, True or RGB."""

    color_by: str
    colors: Chosen
    opacity: float
    outline: bool | RGB
    line_width: float | None
    labels: bool
    font: ImageFont.FreeTypeFont | None
    font_size: float | None


def checked_style(style: OverlayStyle) -> Look:
    """Check the arguments of an overlay.

    Raises:
        InvalidRequestError: One is not what it should be, or the font cannot be read.
        TypeError: There is no such argument.
    """
    if unknown := set(style) - set(OverlayStyle.__annotations__):
        known = ", ".join(OverlayStyle.__annotations__)
        raise TypeError(f"overlay has no argument {min(unknown)!r}; it has {known}")
    color_by = style.get("color_by", "auto")
    if color_by not in ("auto", "instance", "prompt"):
        raise InvalidRequestError(f"color_by is 'auto', 'instance' or 'prompt', got {color_by!r:.60}")
    opacity = style.get("opacity", 0.42)
    if not 0 <= opacity <= 1:
        raise InvalidRequestError(f"the opacity is between 0 and 1, got {opacity}")
    outlines = style.get("outlines", True)
    font = style.get("font")
    own_size = font.size if isinstance(font, ImageFont.FreeTypeFont) else None
    return Look(
        color_by=color_by,
        colors=_colors(style.get("colors")),
        opacity=opacity,
        outline=outlines if isinstance(outlines, bool) else _rgb(outlines),
        line_width=_positive("line_width", style.get("line_width"), most=1000),
        labels=style.get("labels", True),
        font=_font(font),
        font_size=_positive("font_size", style.get("font_size", own_size), most=2000),
    )


def _colors(colors: Any) -> Chosen:
    if colors is None:
        return []
    if isinstance(colors, Mapping):
        return {prompt: _rgb(color) for prompt, color in cast("Mapping[str, Color]", colors).items()}
    if isinstance(colors, str) or (len(colors) and isinstance(colors[0], int | np.integer)):
        return [_rgb(colors)]
    return [_rgb(color) for color in colors]


def _rgb(color: Any) -> RGB:
    try:
        values = ImageColor.getrgb(color)[:3] if isinstance(color, str) else tuple(color)
        red, green, blue = (int(value) for value in values)
        if all(0 <= value <= 255 for value in (red, green, blue)):
            return red, green, blue
    except (TypeError, ValueError):
        pass
    raise InvalidRequestError(
        f"a colour is a name or code such as 'red' or '#3366cc', or three numbers 0..255, got {color!r:.60}"
    )


def _positive(name: str, value: float | None, *, most: float) -> float | None:
    if value is not None and not 0 < value <= most:
        raise InvalidRequestError(f"{name} is a number of pixels above 0 and up to {most:.0f}, got {value!r:.60}")
    return None if value is None else float(value)


def _font(font: Any) -> ImageFont.FreeTypeFont | None:
    if font is None or isinstance(font, ImageFont.FreeTypeFont):
        return font
    try:
        return ImageFont.truetype(os.fspath(font), size=16)
    except (OSError, TypeError) as err:
        raise InvalidRequestError(f"the font {font!r:.200} cannot be read: {err}; name a .ttf or .otf file") from err

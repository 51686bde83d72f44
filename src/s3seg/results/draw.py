"""Draw results: overlays, cut-outs, thumbnails. Pillow only.

Time and memory grow with the picture plus the areas of the masks' boxes; masks are decoded one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, Unpack

import numpy as np
from PIL import Image, ImageFilter

from s3seg import images
from s3seg.errors import InvalidRequestError
from s3seg.images import ImageSource
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.labels import Label, draw_labels
from s3seg.results.masks import RLE
from s3seg.results.overlay_style import Chosen, OverlayStyle, checked_style
from s3seg.results.palette import RGB, assign_colors, palette_color
from s3seg.results.pictures import Results, as_list

_HALO = (8, 10, 16)
_NO_PICTURE = (30, 33, 40)


def overlay(
    image: ImageSource,
    results: Results,
    **style: Unpack[OverlayStyle],
) -> Image.Image:
    """Draw one or more results on their picture: a translucent fill, an outline and a label for each instance.

    By default, lines and labels scale with the picture. Small instances are drawn over large ones. A label that would
    cover another label or hide an instance is moved, or left out if there is no free position.

    Args:
        image: the picture that was segmented, from any source that `s3seg.images.load` takes, and read in the same
            way: turned upright by its EXIF orientation, transparency on white. Not modified.
        results: one result, or several for any number of prompts, all on this picture.
        style: how it looks; see `s3seg.results.overlay_style.OverlayStyle`.

    Returns:
        A new RGB picture of the same size.

    Raises:
        ImageDecodeError: the picture cannot be read.
        InvalidRequestError: a result has another size than the picture, or an option is none of the above.

    Warns:
        UserWarning: no font on this machine has the letters of a prompt, so its labels are the numbers of instances.
    """
    look = checked_style(style)
    columns = as_list(results)
    canvas = _as_rgb(image, columns).copy()
    by_prompt = look.color_by == "prompt" or (look.color_by == "auto" and len(columns) > 1)
    rles = [rle for result in columns for rle in result.rles]
    colors = _colors(columns, look.colors, by_prompt=by_prompt)
    scaled = max(1.3, 0.003 * math.sqrt(canvas.width * canvas.height))
    areas = [masks.area(rle) for rle in rles]
    for k in sorted(range(len(rles)), key=lambda k: -areas[k]):
        if areas[k]:
            width = look.line_width or _line_width(rles[k], scaled)
            line = colors[k] if look.outline is True else look.outline
            _paint(canvas, rles[k], colors[k], line, opacity=look.opacity, line_width=width)
    if look.labels:
        texts = [
            (result.prompt, number, float(score))
            for result in columns
            for number, score in enumerate(result.scores, start=1)
        ]
        marks = [
            Label(prompt, score, masks.box(rle), color, number)
            for (prompt, number, score), rle, color, area in zip(texts, rles, colors, areas, strict=True)
            if area
        ]
        marks.sort(key=lambda mark: -mark.score)
        draw_labels(canvas, marks, gap=look.line_width or scaled, font=look.font, font_size=look.font_size)
    return canvas


def crops(image: ImageSource, result: Columns) -> list[Image.Image]:
    """Cut every instance out of the picture.

    Args:
        image: the picture that was segmented, as for `overlay`.
        result: the instances.

    Returns:
        An RGBA picture for each instance, of the size of the mask's tight box, with the mask as alpha; one
        transparent pixel for an empty mask.

    Raises:
        ImageDecodeError: the picture cannot be read.
        InvalidRequestError: the result has another size than the picture.
    """
    picture = _as_rgb(image, [result])
    return [_cut_out(picture, rle, padding=0) for rle in result.rles]


def crop(image: ImageSource, instance: Columns, *, padding: int = 0) -> Image.Image:
    """Cut one instance out of the picture, as `crops` does.

    Args:
        image: the picture that was segmented, as for `overlay`.
        instance: a result with one instance.
        padding: transparent pixels to leave around it, as far as the picture reaches.

    Raises:
        ImageDecodeError: the picture cannot be read.
        InvalidRequestError: the result has another size than the picture, or the padding is negative.
    """
    if padding < 0:
        raise InvalidRequestError(f"the padding is a number of pixels, 0 or more, got {padding!r:.60}")
    (rle,) = instance.rles
    return _cut_out(_as_rgb(image, [instance]), rle, padding=padding)


def _cut_out(picture: Image.Image, rle: RLE, *, padding: int) -> Image.Image:
    mask, (y, x) = masks.decode_box(rle)
    if not mask.size:
        return Image.new("RGBA", (1, 1))
    left, top = max(0, x - padding), max(0, y - padding)
    right = min(picture.width, x + mask.shape[1] + padding)
    bottom = min(picture.height, y + mask.shape[0] + padding)
    alpha = Image.new("L", (right - left, bottom - top))
    alpha.paste(_as_alpha(mask), (x - left, y - top))
    piece = picture.crop((left, top, right, bottom)).convert("RGBA")
    piece.putalpha(alpha)
    return piece


def thumbnail(result: Columns, *, side: int = 900) -> Image.Image:
    """Draw the overlay within side × side pixels, on a dark background if the result does not hold its picture."""
    height, width = result.size
    image = Image.new("RGB", (width, height), _NO_PICTURE) if result.image is None else images.of_result(result.image)
    picture = overlay(image, result)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _colors(results: Sequence[Columns], chosen: Chosen, *, by_prompt: bool) -> list[RGB]:
    """Return a colour for each instance: of the chosen ones, or else of the palette."""
    prompts = list(dict.fromkeys(result.prompt for result in results))
    of_instances = [prompts.index(result.prompt) for result in results for _ in result.rles]
    if isinstance(chosen, dict):
        return [chosen.get(prompts[k]) or palette_color(k) for k in of_instances]
    numbers = of_instances if by_prompt else list(range(len(of_instances)))
    if chosen:
        return [chosen[k % len(chosen)] for k in numbers]
    if by_prompt:
        return [palette_color(k) for k in numbers]
    boxes = np.array([masks.box(rle) for result in results for rle in result.rles]).reshape(-1, 4)
    return [palette_color(k) for k in assign_colors(boxes)]


def _line_width(rle: RLE, scaled: float) -> float:
    """Return the width of an outline: that of the picture's size, or less on instances that are small themselves."""
    x1, y1, x2, y2 = masks.box(rle)
    return max(1.0, min(scaled, 0.12 * math.sqrt((x2 - x1) * (y2 - y1))))


def _paint(
    canvas: Image.Image, rle: RLE, color: RGB, outline: RGB | Literal[False], *, opacity: float, line_width: float
) -> None:
    """Fill and outline one mask on the canvas.

    Near a boundary, the value of a blurred mask gives the distance to the boundary, because a straight edge
    blurs into the normal distribution. A smooth fill and an antialiased line follow from that distance. The
    edges of the picture get no line, because the blur continues the mask beyond them.
    """
    sigma = max(0.6, 0.6 * line_width)
    margin = math.ceil(3 * sigma + line_width)
    crop, (y, x) = masks.decode_box(rle)
    left, top = max(0, x - margin), max(0, y - margin)
    right = min(canvas.width, x + crop.shape[1] + margin)
    bottom = min(canvas.height, y + crop.shape[0] + margin)
    around = np.zeros((bottom - top, right - left), np.bool_)
    around[y - top : y - top + crop.shape[0], x - left : x - left + crop.shape[1]] = crop
    blurred = _as_alpha(around).filter(ImageFilter.GaussianBlur(sigma))

    quantile = NormalDist(sigma=sigma).inv_cdf
    distance = np.array([quantile((level + 0.5) / 256) for level in range(256)])  # pixels, positive inside
    fill = opacity * np.clip(distance + 0.5, 0, 1)
    line = np.clip(line_width / 2 + 0.5 - np.abs(distance), 0, 1)
    halo = 0.4 * np.clip(1 - (np.abs(distance) - line_width / 2) / line_width, 0, 1)
    halo[0] = line[0] = 0  # level 0 is "far outside", not a distance
    if line_width < 2 * sigma:
        halo[-1] = line[-1] = 0
    layers = [(color, fill)] if outline is False else [(color, fill), (_HALO, halo), (outline, line)]
    for tint, coverage in layers:
        alpha = blurred.point(np.round(255 * coverage).astype(int).tolist())
        canvas.paste(tint, (left, top, right, bottom), alpha)


def _as_alpha(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255))


def _as_rgb(image: ImageSource, results: Sequence[Columns]) -> Image.Image:
    """Load the picture as for segmenting, check that it has the size of the results, and return it as PIL RGB."""
    loaded = images.load(image)
    for result in results:
        if result.size != loaded.size:
            turned = result.size == loaded.size[::-1]
            raise InvalidRequestError(
                f"the picture is {loaded.size} (height, width), but the result {result.size}: "
                + ("one of them is turned by 90 degrees; " if turned else "")
                + "pass the picture that was segmented, as a file or PIL picture that still has its EXIF orientation, "
                "which is applied on loading, or as upright pixels"
            )
    return Image.fromarray(loaded.pixels)

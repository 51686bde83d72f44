"""Draw results: overlays, cut-outs, thumbnails. Pillow only.

Time and memory grow with the picture plus the areas of the masks' boxes; masks are decoded one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from s3seg import images
from s3seg.errors import InvalidRequestError
from s3seg.images import ImageSource
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.labels import Label, draw_labels
from s3seg.results.masks import RLE
from s3seg.results.palette import RGB, assign_colors, palette_color
from s3seg.results.pictures import Results, as_list

_HALO = (8, 10, 16)
_NO_PICTURE = (30, 33, 40)


def overlay(
    image: ImageSource,
    results: Results,
    *,
    color_by: Literal["auto", "instance", "prompt"] = "auto",
    labels: bool = True,
    opacity: float = 0.42,
) -> Image.Image:
    """Draw one or more results on their picture: a translucent fill, an outline and a label for each instance.

    Lines and labels scale with the picture. Small instances are drawn over large ones. A label that would
    cover another label or hide an instance is moved, or left out if there is no free position.

    Args:
        image: the picture that was segmented, from any source that `s3seg.images.load` takes, and read in the same
            way: turned upright by its EXIF orientation, transparency on white. Not modified.
        results: one result, or several for any number of prompts, all on this picture.
        color_by: a colour for each instance or each prompt; "auto" is by prompt for several results.
        labels: write prompt and score on each instance.
        opacity: of the fill, 0..1.

    Returns:
        A new RGB picture of the same size.

    Raises:
        ImageDecodeError: the picture cannot be read.
        InvalidRequestError: a result has another size than the picture, or an option is none of the above.

    Warns:
        UserWarning: no font on this machine has the letters of a prompt, so its labels are the numbers of instances.
    """
    if color_by not in ("auto", "instance", "prompt"):
        raise InvalidRequestError(f"color_by is 'auto', 'instance' or 'prompt', got {color_by!r:.60}")
    if not 0 <= opacity <= 1:
        raise InvalidRequestError(f"the opacity is between 0 and 1, got {opacity}")
    columns = as_list(results)
    canvas = _as_rgb(image, columns).copy()
    by_prompt = color_by == "prompt" or (color_by == "auto" and len(columns) > 1)
    rles = [rle for result in columns for rle in result.rles]
    colors = _colors(columns, by_prompt=by_prompt)
    line_width = max(1.3, 0.003 * math.sqrt(canvas.width * canvas.height))
    areas = [masks.area(rle) for rle in rles]
    for k in sorted(range(len(rles)), key=lambda k: -areas[k]):
        if areas[k]:
            _paint(canvas, rles[k], colors[k], opacity=opacity, line_width=line_width)
    if labels:
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
        draw_labels(canvas, sorted(marks, key=lambda mark: -mark.score), gap=line_width)
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
    cut = []
    for rle in result.rles:
        mask, (y, x) = masks.decode_box(rle)
        if not mask.size:
            cut.append(Image.new("RGBA", (1, 1)))
            continue
        piece = picture.crop((x, y, x + mask.shape[1], y + mask.shape[0])).convert("RGBA")
        piece.putalpha(_as_alpha(mask))
        cut.append(piece)
    return cut


def thumbnail(result: Columns, *, side: int = 900) -> Image.Image:
    """Draw the overlay within side × side pixels, on a dark background if the result does not hold its picture."""
    height, width = result.size
    image = Image.new("RGB", (width, height), _NO_PICTURE) if result.image is None else result.image
    picture = overlay(image, result)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _colors(results: Sequence[Columns], *, by_prompt: bool) -> list[RGB]:
    if by_prompt:
        prompts = list(dict.fromkeys(result.prompt for result in results))
        return [palette_color(prompts.index(result.prompt)) for result in results for _ in result.rles]
    boxes = np.array([masks.box(rle) for result in results for rle in result.rles]).reshape(-1, 4)
    return [palette_color(k) for k in assign_colors(boxes)]


def _paint(canvas: Image.Image, rle: RLE, color: RGB, *, opacity: float, line_width: float) -> None:
    """Fill and outline one mask on the canvas.

    Near a boundary, the value of a blurred mask gives the distance to the boundary, because a straight edge
    blurs into the normal distribution. A smooth fill and an antialiased line follow from that distance. The
    edges of the picture get no line, because the blur continues the mask beyond them.
    """
    x1, y1, x2, y2 = (int(side) for side in masks.box(rle))
    # Lines thinner than usual on instances that are small themselves
    line_width = max(1.0, min(line_width, 0.12 * math.sqrt((x2 - x1) * (y2 - y1))))
    sigma = max(0.6, 0.6 * line_width)
    margin = math.ceil(3 * sigma + line_width)
    left, top = max(0, x1 - margin), max(0, y1 - margin)
    right, bottom = min(canvas.width, x2 + margin), min(canvas.height, y2 + margin)
    blurred = _as_alpha(masks.decode(rle)[top:bottom, left:right]).filter(ImageFilter.GaussianBlur(sigma))

    quantile = NormalDist(sigma=sigma).inv_cdf
    distance = np.array([quantile((level + 0.5) / 256) for level in range(256)])  # pixels, positive inside
    fill = opacity * np.clip(distance + 0.5, 0, 1)
    line = np.clip(line_width / 2 + 0.5 - np.abs(distance), 0, 1)
    halo = 0.4 * np.clip(1 - (np.abs(distance) - line_width / 2) / line_width, 0, 1)
    halo[0] = line[0] = 0  # level 0 is "far outside", not a distance
    if line_width < 2 * sigma:
        halo[-1] = line[-1] = 0
    for tint, coverage in ((color, fill), (_HALO, halo), (color, line)):
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

"""Check what callers of `Segmenter` ask for, and turn it into queries for the network."""

from __future__ import annotations

import contextlib
import math
import operator
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex, cast

import numpy as np

from s3seg.errors import InvalidRequestError, PromptError
from s3seg.results import masks
from s3seg.results.masks import RLE
from s3seg.results.segmentation import Instance
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.prompts import normalize_prompts

if TYPE_CHECKING:
    from s3seg.sam3.click_predictor import ClickQuery
    from s3seg.sam3.predictor import Query

Box = Sequence[float]
"""x1, y1, x2, y2 in pixels of the picture."""


@dataclass(frozen=True, slots=True)
class BoxedPrompt:
    """A prompt with boxes that show examples, for the batcher.

    Attributes:
        text: What to look for; empty to look for what is in the boxes.
        boxes: Examples of what to find, xyxy in pixels of the picture.
        negative_boxes: Examples of what not to find.
    """

    text: str
    boxes: tuple[Box, ...] = ()
    negative_boxes: tuple[Box, ...] = ()


_TEXT_FOR_BOXES = "visual"  # what the reference implementation uses when a prompt has boxes and no words


def checked_prompts(prompt: str | Sequence[str] | None, *, has_boxes: bool) -> list[str]:
    """Return the prompts as a list, in the normal form of `s3seg.tasks.prompts`; duplicates are kept.

    Without a prompt but with boxes, the list has one empty prompt.

    Raises:
        PromptError: There is no prompt, or one is empty, not text, or has control characters.
    """
    if prompt is None:
        if not has_boxes:
            raise PromptError("there is no prompt; say what to look for, such as 'cat', or give boxes that show it")
        return [""]
    prompts = normalize_prompts(prompt)
    if not prompts:
        raise PromptError("the list of prompts is empty; say what to look for, such as ['cat', 'dog']")
    for one in prompts:
        if not one and not has_boxes:
            raise PromptError("the prompt is empty; say what to look for, such as 'cat'")
        for position, character in enumerate(one):
            if unicodedata.category(character) in ("Cc", "Cs"):
                code = f"U+{ord(character):04X} at position {position}"
                raise PromptError(f"the prompt {one!r:.60} has a control character, {code}; remove it")
    return prompts


def checked_threshold(threshold: object) -> float:
    """Return a threshold (a number of Python, numpy or torch) as a float.

    Raises:
        InvalidRequestError: It is not a number between 0 and 1.
    """
    number = math.nan
    if not isinstance(threshold, str | bytes | bool | np.bool_):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(threshold)  # type: ignore[arg-type]
    if not 0 <= number <= 1:
        raise InvalidRequestError(f"the threshold must be a score between 0 and 1, got {threshold!r:.60}")
    return number


def checked_positive(name: str, number: object) -> int:
    """Return a number as an int, after checking that it is a whole number, 1 or more.

    Raises:
        InvalidRequestError: It is not; the message has the name and the number.
    """
    whole = 0
    if not isinstance(number, bool | np.bool_):
        with contextlib.suppress(TypeError):
            whole = operator.index(cast(SupportsIndex, number))
    if whole < 1:
        raise InvalidRequestError(f"{name} must be a whole number, 1 or more, got {number!r:.60}")
    return whole


def checked_mask(mask: object, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (an array, an `RLE` or an `Instance`) as float32 (H, W), 0 or 1.

    Raises:
        InvalidRequestError: It is no mask of the picture's (height, width).
    """
    rle = mask.rle if isinstance(mask, Instance) else mask
    pixels = masks.decode(rle) if isinstance(rle, RLE) else np.asarray(rle)
    if pixels.shape != size or pixels.dtype.kind not in "bui":
        raise InvalidRequestError(
            f"the mask must be an RLE, or an array of bools, of the picture's size {size}; got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    return (pixels != 0).astype(np.float32)


def make_queries(
    prompts: Sequence[str], boxes: Sequence[Box], negative_boxes: Sequence[Box], *, size: tuple[int, int]
) -> list[Query]:
    """Make a query for each prompt; every query has all boxes.

    Args:
        prompts: As `checked_prompts` returns them.
        boxes: Examples of what to find, xyxy in pixels.
        negative_boxes: Examples of what not to find.
        size: (height, width) of the picture.

    Raises:
        InvalidRequestError: A box is malformed, or has no part inside the picture.
    """
    from s3seg.sam3.predictor import BoxPrompt, Query

    examples = tuple(
        BoxPrompt(_normalised(box, size), positive)
        for positive, group in ((True, boxes), (False, negative_boxes))
        for box in group
    )
    return [Query(prompt or _TEXT_FOR_BOXES, examples) for prompt in prompts]


def make_click_queries(
    objects: Sequence[Clicks], *, size: tuple[int, int], starts: Sequence[np.ndarray | None] = ()
) -> list[ClickQuery]:
    """Make a query for each object.

    Args:
        objects: The points and boxes of the objects.
        size: (height, width) of the picture.
        starts: A mask (H, W) to start from for each object; none by default.

    Raises:
        InvalidRequestError: A point or a box is outside the picture.
    """
    from s3seg.sam3.click_predictor import ClickQuery

    height, width = size
    queries = []
    for one, mask in zip(objects, starts or [None] * len(objects), strict=True):
        one.require_inside(size)
        box = None
        if one.box is not None:
            x1, y1, x2, y2 = one.box
            box = (max(x1, 0) / width, max(y1, 0) / height, min(x2, width) / width, min(y2, height) / height)
        queries.append(ClickQuery([(x / width, y / height) for x, y in one.points], one.labels, box, mask))
    return queries


def _normalised(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Turn xyxy in pixels into (cx, cy, w, h), 0..1, of the part inside the picture."""
    height, width = size
    try:
        corners = [float(side) for side in box]
    except (TypeError, ValueError):
        corners = []
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise InvalidRequestError(
            f"a box is four numbers, x1, y1, x2, y2 in pixels, and boxes=[...] a list of them; got {box!r:.80}"
        )
    x1, y1, x2, y2 = corners
    x1, x2 = max(x1, 0.0), min(x2, float(width))
    y1, y2 = max(y1, 0.0), min(y2, float(height))
    if x1 >= x2 or y1 >= y2:
        raise InvalidRequestError(
            f"no part of the box {corners} is inside the picture of {width} x {height} pixels; "
            "a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2"
        )
    return ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)

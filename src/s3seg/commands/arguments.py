"""What the words of a command line mean: which are pictures, which are prompts; boxes and names of files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from s3seg.errors import InvalidRequestError
from s3seg.images import is_url
from s3seg.images.sources import STDIN, image_suffixes

_EXAMPLE = 's3seg segment photo.jpg "cat"'


def split(words: Sequence[str], prompts: Sequence[str], *, has_boxes: bool = False) -> tuple[list[str], list[str]]:
    """Tell the pictures from the prompts.

    The last word is a prompt, and those of ``--prompt`` follow it. When ``--prompt`` or ``--box`` already says what
    to look for, a last word that names a picture (something that exists, a URL, ``-``, a pattern, or a name that
    ends like a picture's) is one more picture.

    Args:
        words: The arguments, in order.
        prompts: Of ``--prompt``.
        has_boxes: Whether ``--box`` was given.

    Returns:
        Pictures as the user named them, and prompts without repetitions.

    Raises:
        InvalidRequestError: A picture or the prompt is missing.
    """
    *pictures, last = words
    if prompts or has_boxes:
        if _names_a_picture(last) or _exists(last):
            pictures, found = [*words], [*prompts]
        else:
            found = [last, *prompts]
    elif _names_a_picture(last) or (not pictures and _exists(last)):
        raise InvalidRequestError(
            f"say what to look for: the last argument is the prompt, but {last!r} names a picture; as in: {_EXAMPLE}"
        )
    else:
        found = [last]
    if not pictures:
        raise InvalidRequestError(f"no picture was given: name pictures before the prompt {last!r}, as in: {_EXAMPLE}")
    if any(not prompt.strip() for prompt in found):
        raise InvalidRequestError(f"the prompt is empty; say what to look for, as in: {_EXAMPLE}")
    return pictures, list(dict.fromkeys(found))


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Read "x1,y1,x2,y2", in pixels.

    Raises:
        InvalidRequestError: It is not four numbers, or x1 >= x2, or y1 >= y2.
    """
    try:
        x1, y1, x2, y2 = (float(side) for side in text.split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, (x1, y1, x2, y2)))):
        raise InvalidRequestError(
            f"a box is x1,y1,x2,y2 in pixels with x1 < x2 and y1 < y2, such as 20,30,200,180; got {text!r}"
        )
    return x1, y1, x2, y2


def slug(text: str) -> str:
    """A text as a part of a file name: "A red car!" becomes "a-red-car"."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "prompt"


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with -2, -3 ... where one was there before; upper and lower case count as the same."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate.casefold() in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def _names_a_picture(word: str) -> bool:
    if word == STDIN or is_url(word) or "*" in word:
        return True
    return Path(word).suffix.lower() in image_suffixes()


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False

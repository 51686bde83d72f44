"""The options of one run, checked, and how the words of the command line are read."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3seg.commands.segment.output_options import OutputOptions
from s3seg.errors import InvalidRequestError
from s3seg.images import is_url
from s3seg.images.sources import STDIN, image_suffixes
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.prompts import normalize_prompt, normalize_prompts, several_things

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""

Point = tuple[float, float]
"""x, y in pixels."""

_EXAMPLE = 's3seg segment photo.jpg "cat"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to look for in every picture.

    Attributes:
        prompts: In order; empty if only boxes or points are given.
        boxes: Examples of what to find; with points, at most one, around the object.
        negative_boxes: Examples of what not to find.
        points: Points on the one object to segment.
        negative_points: Points on what does not belong to it.
        concept: File with a concept, instead of prompts; None without one.
        threshold: Minimum score, 0..1; one for each prompt; "calibrated"; or None for the checkpoint's default.
        max_instances: Maximum number of instances for each prompt; None for all.
        tile: Side of the tiles to look into, in pixels, or "auto"; None for the whole picture only.
        overlaps: Whether instances may overlap; otherwise the best has a pixel.

    Raises:
        InvalidRequestError: There are tiles and boxes, or points are combined with what they exclude.
    """

    prompts: Sequence[str]
    boxes: Sequence[Box] = ()
    negative_boxes: Sequence[Box] = ()
    points: Sequence[Point] = ()
    negative_points: Sequence[Point] = ()
    concept: str | None = None
    threshold: float | Mapping[str, float] | Literal["calibrated"] | None = None
    max_instances: int | None = None
    tile: int | Literal["auto"] | None = None
    overlaps: bool = True

    def __post_init__(self) -> None:
        if self.tile is not None and (self.has_boxes or self.clicks is not None or self.concept is not None):
            raise InvalidRequestError(
                "boxes, points and a concept cannot be used with --tile: a tile does not show what they show"
            )
        if self.concept is not None and (self.prompts or self.boxes or self.negative_boxes or self.points):
            raise InvalidRequestError(
                "--concept cannot be used with a prompt, boxes or points: it has its own words and examples"
            )
        if not (self.points or self.negative_points):
            return
        excluded = {
            f"the prompt {', '.join(self.prompts)!r:.60}": bool(self.prompts),
            "--negative-box": bool(self.negative_boxes),
            "a second --box": len(self.boxes) > 1,
            "--threshold": self.threshold is not None,
            "--max-instances": self.max_instances is not None,
        }
        if given := [name for name, is_given in excluded.items() if is_given]:
            raise InvalidRequestError(
                f"{', '.join(given)} cannot be used with points: they, and perhaps one --box, show the one object"
            )

    @property
    def has_boxes(self) -> bool:
        """Whether there are boxes of either kind, as examples."""
        return bool(self.boxes or self.negative_boxes) and self.clicks is None

    @property
    def clicks(self) -> Clicks | None:
        """What shows the one object to segment; None without points."""
        if not (self.points or self.negative_points):
            return None
        labels = [1] * len(self.points) + [0] * len(self.negative_points)
        return Clicks([*self.points, *self.negative_points], labels, next(iter(self.boxes), None))

    @property
    def local_options(self) -> list[str]:
        """The options that only a model on this machine takes."""
        given = {
            "--threshold PROMPT=SCORE": isinstance(self.threshold, Mapping),
            "--threshold calibrated": self.threshold == "calibrated",
        }
        return [name for name, is_given in given.items() if is_given]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model answers, and where it runs.

    Attributes:
        checkpoint: As for `s3seg.checkpoints.resolve`; None for the default.
        device: "auto", or a name such as "cuda:1".
        dtype: "auto", or a name such as "bfloat16".
        image_size: Side to resize pictures to, in pixels; None for the checkpoint's default.
        calibration: File of ``s3seg calibrate``; None without one.
        url: Address of a service that segments instead of this machine.
        token: Access token for the service; None to read it from the environment, or to use a sign-in.
    """

    checkpoint: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    image_size: int | None = None
    calibration: Path | None = None
    url: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """Everything that one run of ``s3seg segment`` needs to know.

    Attributes:
        inputs: Files, folders, globs, URLs, "-".
        recursive: Whether to search folders with their subfolders.
        request: What to look for.
        model: Which model to use.
        output: What to write, and where.
        resume: Whether to skip pictures that an earlier run has finished.
        quiet: Whether to leave out notes and progress.

    Raises:
        InvalidRequestError: There is nothing on disk that a later run could resume.
    """

    inputs: Sequence[str]
    recursive: bool
    request: Request
    model: ModelOptions
    output: OutputOptions
    resume: bool
    quiet: bool

    def __post_init__(self) -> None:
        if self.resume and not self.output.resumable:
            raise InvalidRequestError(
                "--resume continues an earlier run from its output files: name an output folder, or a file with -o"
            )


def split_words(
    words: Sequence[str], prompts: Sequence[str], *, has_marks: bool = False
) -> tuple[list[str], list[str]]:
    """Separate the inputs from the prompts.

    The last word is a prompt, and those of ``--prompt`` follow it. If ``--prompt``, boxes or points are given, a last
    word that names a picture (an existing path, a URL, ``-``, a glob, or a name with the suffix of a picture) is an
    input.

    Args:
        words: The arguments, in order.
        prompts: The values of ``--prompt``.
        has_marks: Whether boxes or points were given.

    Returns:
        Inputs as the user wrote them; prompts, normalized and without duplicates.

    Raises:
        InvalidRequestError: There is no input, no prompt, or a prompt that is empty or not text.
    """
    *inputs, last = words
    if prompts or has_marks:
        if _names_a_picture(last) or _exists(last):
            inputs, all_prompts = [*words], [*prompts]
        else:
            all_prompts = [last, *prompts]
    elif _names_a_picture(last) or (_exists(last) and (not inputs or _looks_like_a_path(last))):
        what = "a picture" if _names_a_picture(last) else "a folder" if Path(last).is_dir() else "a file"
        raise InvalidRequestError(
            f"no prompt: the last argument must be what to look for, and {last!r} is {what}; example: {_EXAMPLE}"
        )
    else:
        all_prompts = [last]
    if not inputs:
        raise InvalidRequestError(f"no picture: name one before the prompt {last!r}; example: {_EXAMPLE}")
    for prompt in all_prompts:
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise InvalidRequestError(f"the prompt {prompt!r} is not valid UTF-8; check the encoding of the terminal")
    normalized = normalize_prompts(all_prompts)
    if not all(normalized):
        raise InvalidRequestError(f"the prompt is empty; example: {_EXAMPLE}")
    return inputs, list(dict.fromkeys(normalized))


def several_things_advice(inputs: Sequence[str], prompts: Sequence[str]) -> dict[str, str]:
    """Return a hint for each prompt that looks like a list of things, with the command for one prompt each.

    Args:
        inputs: The inputs of the command.
        prompts: Its prompts, normalized.
    """
    advice = {}
    for prompt in prompts:
        if several_things(prompt):
            others = [thing for one in prompts for thing in (several_things(one) or [one])]
            first, *more = dict.fromkeys(others)
            words = [shlex.quote(inputs[0]), *(["..."] if len(inputs) > 1 else []), shlex.quote(first)]
            words += [f"-p {shlex.quote(thing)}" for thing in more]
            advice[prompt] = (
                f"{prompt!r} is searched for as one thing; for several, give each its own prompt: "
                f"s3seg segment {' '.join(words)}"
            )
    return advice


def parse_thresholds(
    texts: Sequence[str], prompts: Sequence[str]
) -> float | dict[str, float] | Literal["calibrated"] | None:
    """Read the values of ``--threshold``: one number, "calibrated", or "PROMPT=NUMBER" for some prompts.

    Raises:
        InvalidRequestError: They are something else, contradict each other, or name a prompt that is not asked for.
    """
    if not texts:
        return None
    if list(texts) == ["calibrated"]:
        return "calibrated"
    if len(texts) == 1 and "=" not in texts[0]:
        return _score(texts[0])
    thresholds: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        prompt = normalize_prompt(name)
        if not name or prompt in thresholds:
            raise InvalidRequestError(f"several thresholds are of one prompt each, such as cat=0.4; got {text!r}")
        if prompt not in prompts:
            raise InvalidRequestError(f"--threshold {text}: {prompt!r} is not among the prompts")
        thresholds[prompt] = _score(value)
    return thresholds


def parse_tile(text: str | None) -> int | Literal["auto"] | None:
    """Read the value of ``--tile``.

    Raises:
        InvalidRequestError: It is neither "auto" nor a whole number.
    """
    if text is None or text == "auto":
        return text
    if not text.isascii() or not text.isdigit():
        raise InvalidRequestError(f'--tile is "auto" or a number of pixels, got {text!r}')
    return int(text)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise InvalidRequestError(f"--threshold must be a score between 0 and 1, got {text!r}")
    return score


def parse_box(text: str) -> Box:
    """Read a box written as "x1,y1,x2,y2".

    Raises:
        InvalidRequestError: It is not four finite numbers, or x1 >= x2, or y1 >= y2.
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


def parse_point(text: str) -> Point:
    """Read a point written as "x,y".

    Raises:
        InvalidRequestError: It is not two finite numbers.
    """
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InvalidRequestError(f"a point is x,y in pixels, such as 120,80; got {text!r}")
    return x, y


def _names_a_picture(word: str) -> bool:
    if word == STDIN or is_url(word) or "*" in word:
        return True
    suffix = Path(word).suffix.lower()
    return bool(suffix) and suffix in image_suffixes()  # which imports every format that Pillow reads


def _looks_like_a_path(word: str) -> bool:
    return bool(Path(word).suffix) or "/" in word or os.sep in word


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # longer than file names can be, or with a null character
        return False

"""Clicks: points and a box that show one object in a picture."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from s3seg.errors import InvalidRequestError

MAX_POINTS = 64
"""Points that one object may have."""

_MAX_TEXT = 120
_EXAMPLE = "for example points=[(120, 80)]"


@dataclass(frozen=True, slots=True, init=False)
class Clicks:
    """Points and a box that show one object, in pixels of the picture.

    Attributes:
        points: (x, y) of up to 64 points.
        labels: for each point, whether it is on the object (True) or on what does not belong to it (False).
        box: (x1, y1, x2, y2) around the object, or None.
    """

    points: tuple[tuple[float, float], ...]
    labels: tuple[bool, ...]
    box: tuple[float, float, float, float] | None

    def __init__(
        self,
        points: Iterable[Sequence[float]] = (),
        labels: Iterable[int | bool] | None = None,
        box: Sequence[float] | None = None,
    ) -> None:
        """Check and keep what was given.

        Args:
            points: (x, y) of each point.
            labels: 1 for a point on the object, 0 for one beside it; None if all are on it.
            box: (x1, y1, x2, y2) with x1 < x2 and y1 < y2, or None.

        Raises:
            InvalidRequestError: There is neither a point nor a box, or something is malformed or too much.
        """
        places = [_numbers(point, 2, f"a point is two numbers, x and y in pixels, {_EXAMPLE}") for point in points]
        if len(places) > MAX_POINTS:
            raise InvalidRequestError(f"an object has at most {MAX_POINTS} points, got {len(places)}")
        says = [True] * len(places) if labels is None else [_label(label) for label in labels]
        if len(says) != len(places):
            raise InvalidRequestError(f"each point needs a label, 1 or 0: got {len(places)} points, {len(says)} labels")
        corners = None
        if box is not None:
            corners = _numbers(box, 4, "a box is four numbers, x1, y1, x2, y2 in pixels")
            if corners[0] >= corners[2] or corners[1] >= corners[3]:
                raise InvalidRequestError(f"a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {corners}")
        if not places and corners is None:
            raise InvalidRequestError(f"there is neither a point nor a box to show the object; {_EXAMPLE}")
        object.__setattr__(self, "points", tuple(places))
        object.__setattr__(self, "labels", tuple(says))
        object.__setattr__(self, "box", corners)

    def require_inside(self, size: tuple[int, int]) -> None:
        """Check that every point, and a part of the box, is in a picture of this (height, width).

        Raises:
            InvalidRequestError: It is not; the message has the place and the size.
        """
        height, width = size
        where = f"inside the picture of {width} x {height} pixels"
        for x, y in self.points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise InvalidRequestError(f"the point {x:g},{y:g} is not {where}")
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            if not (x1 < width and y1 < height and x2 > 0 and y2 > 0):
                raise InvalidRequestError(f"no part of the box {x1:g},{y1:g},{x2:g},{y2:g} is {where}")

    def text(self) -> str:
        """Return a short description, such as "point 120,80; not 30,40", which need not name all points."""
        parts = [] if self.box is None else ["box {:g},{:g},{:g},{:g}".format(*self.box)]
        for (x, y), inside in zip(self.points, self.labels, strict=True):
            parts.append(f"{'point' if inside else 'not'} {x:g},{y:g}")
        text = "; ".join(parts)
        return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, of which `from_dict` makes an equal object."""
        points, labels = [list(point) for point in self.points], [int(label) for label in self.labels]
        found: dict[str, Any] = {"points": points, "labels": labels}
        return found if self.box is None else found | {"box": list(self.box)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Clicks:
        """Read what `to_dict` returned."""
        return cls(data["points"], data["labels"], data.get("box"))


def click_texts(objects: Sequence[Clicks]) -> tuple[str, ...]:
    """Describe each object; those with the same description are numbered."""
    texts: list[str] = []
    for one in objects:
        text = one.text()
        same = sum(other == text or other.startswith(f"{text} (") for other in texts)
        texts.append(f"{text} ({same + 1})" if same else text)
    return tuple(texts)


def _numbers(values: object, count: int, rule: str) -> Any:
    numbers: list[float] = []
    if not isinstance(values, str | bytes | Mapping):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            numbers = [float(value) for value in cast("Iterable[float]", values)]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InvalidRequestError(f"{rule}; got {values!r:.80}")
    return tuple(numbers)


def _label(label: object) -> bool:
    if isinstance(label, str | bytes) or label not in (0, 1):
        raise InvalidRequestError(f"a label is 1 for a point on the object and 0 for one beside it, got {label!r:.60}")
    return bool(label)

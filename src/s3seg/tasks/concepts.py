"""Concepts that a service keeps: examples on a user's own images, encoded by the worker when they are used.

They are stored as examples and not as what a network made of them, so they survive a change of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3seg.errors import InvalidRequestError
from s3seg.tasks.object_keys import owner_of, split_image_url

MAX_CONCEPTS = 100
"""Concepts that a user may have."""
MAX_CONCEPT_IMAGES = 4
"""Images of one concept; the worker may have to encode each whenever the concept is used."""
MAX_CONCEPT_BOXES = 16
"""Boxes of each kind on one image."""

Box = tuple[float, float, float, float]


def require_room(concepts: int) -> None:
    """Check that a user with this many concepts may have another.

    Raises:
        InvalidRequestError: There are `MAX_CONCEPTS`.
    """
    if concepts >= MAX_CONCEPTS:
        raise InvalidRequestError(f"you have {MAX_CONCEPTS} concepts, which is the most; delete one first")


@dataclass(frozen=True, slots=True)
class ConceptExample:
    """What boxes show on one image, xyxy in its pixels."""

    image_url: str
    boxes: tuple[Box, ...]
    negative_boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class ConceptDefinition:
    """What a concept is made of.

    Raises:
        InvalidRequestError: There are too few or too many images or boxes, or a box is malformed.
    """

    words: str | None
    examples: tuple[ConceptExample, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.examples) <= MAX_CONCEPT_IMAGES:
            raise InvalidRequestError(
                f"a concept has examples on 1 to {MAX_CONCEPT_IMAGES} images, got {len(self.examples)}"
            )
        for example in self.examples:
            if not example.boxes:
                raise InvalidRequestError("every image of a concept needs a box around an example of what to find")
            for boxes in (example.boxes, example.negative_boxes):
                if len(boxes) > MAX_CONCEPT_BOXES:
                    raise InvalidRequestError(f"an image of a concept has at most {MAX_CONCEPT_BOXES} boxes of a kind")
            for box in (*example.boxes, *example.negative_boxes):
                if len(box) != 4 or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
                    raise InvalidRequestError(f"a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {box!r:.80}")

    def require_owner(self, user_id: str) -> None:
        """Check that all images are the user's own.

        Raises:
            InvalidRequestError: One is not.
        """
        for example in self.examples:
            found = split_image_url(example.image_url)
            if found is None or owner_of(found[1]) != user_id:
                raise InvalidRequestError("an image_url of the examples is not one of your uploads")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, of which `from_dict` makes an equal object."""
        return {
            "words": self.words,
            "examples": [
                {
                    "image_url": one.image_url,
                    "boxes": [list(box) for box in one.boxes],
                    "negative_boxes": [list(box) for box in one.negative_boxes],
                }
                for one in self.examples
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConceptDefinition:
        """Read what `to_dict` returned.

        Raises:
            InvalidRequestError: It is malformed.
        """
        try:
            words = None if data["words"] is None else str(data["words"])
            examples = tuple(
                ConceptExample(str(one["image_url"]), _boxes(one["boxes"]), _boxes(one["negative_boxes"]))
                for one in data["examples"]
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as err:
            raise InvalidRequestError("the examples of the concept are malformed") from err
        return cls(words, examples)


def _boxes(boxes: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    return tuple(tuple(float(side) for side in box) for box in boxes)  # type: ignore[misc]

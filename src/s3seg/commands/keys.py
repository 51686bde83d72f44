"""Keys: a short text that stands for all that the results on a picture depend on.

A key is "REQUEST-PICTURE". Results are taken for done, by ``--resume``, where they bear the very key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s3seg.commands.pictures import Picture

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is looked for, and how; one for all pictures of a run.

    Attributes:
        prompts: In order; empty when boxes alone say it.
        boxes: xyxy in pixels.
        negative_boxes: Likewise.
        threshold: None for the checkpoint's own.
        max_instances: None for all.
        image_size: None for the checkpoint's own.
        dtype: As the user gave it.
    """

    prompts: Sequence[str]
    boxes: Sequence[Box] = ()
    negative_boxes: Sequence[Box] = ()
    threshold: float | None = None
    max_instances: int | None = None
    image_size: int | None = None
    dtype: str = "auto"

    def key(self, answered_by: list[Any]) -> str:
        """The part of the keys that all pictures share: this request, answered by whom `Backend.identity` names."""
        asked = [list(self.prompts), list(self.boxes), list(self.negative_boxes)]
        options = [self.threshold, self.max_instances, self.image_size, self.dtype]
        return _digest([*answered_by, asked, options])


def key_of(picture: Picture, request: str) -> str:
    """The key of a picture; one that no other run will have, where it cannot be known whether it has changed."""
    identity = picture.identity()
    return f"{request}-{secrets.token_hex(8) if identity is None else _digest(identity)}"


def request_of(key: str) -> str:
    """The part of a key that all pictures of a run share."""
    return key.partition("-")[0]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

"""Resume keys: short texts that stand for everything that the results of a picture depend on.

A key is "REQUEST-PICTURE", two digests. ``--resume`` skips a picture whose outputs carry its current key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s3seg.commands.segment.backends import Backend
from s3seg.commands.segment.options import ModelOptions, Request
from s3seg.commands.segment.pictures import Picture


def resume_keys(pictures: Sequence[Picture], request: Request, model: ModelOptions, backend: Backend) -> dict[str, str]:
    """Return the key of each picture, by its source."""
    prompt = [list(request.prompts), list(request.boxes), list(request.negative_boxes)]
    if request.clicks is not None:
        prompt.append([list(request.points), list(request.negative_points)])
    if request.concept is not None:
        prompt.append([hashlib.sha256(Path(request.concept).read_bytes()).hexdigest()])
    thresholds = request.threshold if not isinstance(request.threshold, Mapping) else sorted(request.threshold.items())
    options = [thresholds, request.max_instances, model.image_size, model.dtype]
    if request.tile is not None or not request.overlaps:
        options += [request.tile, request.overlaps]
    if model.calibration is not None:
        options.append(hashlib.sha256(model.calibration.read_bytes()).hexdigest())
    request_digest = _digest([*backend.identity(), prompt, options])
    return {str(picture.source): f"{request_digest}-{_picture_digest(picture)}" for picture in pictures}


def request_part(key: str) -> str:
    """Return the part of a key that all pictures of a run share."""
    return key.partition("-")[0]


def _picture_digest(picture: Picture) -> str:
    """A digest of the picture's identity; a random one, which no other run has, if it is unknown."""
    identity = picture.identity()
    return secrets.token_hex(8) if identity is None else _digest(identity)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

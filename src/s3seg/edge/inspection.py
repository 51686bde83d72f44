"""Inspection of uploads in a decoding process; the edge itself does not import this, because it imports Pillow."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import s3seg.images  # noqa: F401 - when the process starts, rather than at its first picture
from s3seg.edge.uploads import inspect


def inspect_upload(content: bytes, *, name: str, max_pixels: int, max_memory: int) -> tuple[dict[str, Any], bytes]:
    """Inspect an upload as `s3seg.edge.uploads.inspect` does; returns the fields of `Picture`, and no bytes."""
    return asdict(inspect(content, max_pixels=max_pixels, max_memory=max_memory)), b""

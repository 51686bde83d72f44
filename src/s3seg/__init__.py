"""Name what you are looking for, get its masks.

import s3seg

seg = s3seg.Segmenter()
result = seg.segment("park.png", "tree")
result.overlay().save("trees.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3seg import bulk
    from s3seg.app import local
    from s3seg.client import AsyncClient, Client
    from s3seg.errors import (
        CheckpointError,
        CheckpointNotFoundError,
        ImageDecodeError,
        InferenceError,
        InvalidRequestError,
        MaskError,
        PromptError,
        S3segError,
    )
    from s3seg.images import LoadedImage
    from s3seg.images.video import video_frames
    from s3seg.inference.concepts import Concept
    from s3seg.inference.embedding import Embedding
    from s3seg.inference.segmenter import Segmenter
    from s3seg.results import draw, export
    from s3seg.results.combine import merge, without_overlaps
    from s3seg.results.instance import Instance
    from s3seg.results.segmentation import Segmentation
    from s3seg.tasks.clicks import Clicks

__version__ = "0.4.0"

_NAMES = {
    "AsyncClient": "client",
    "CheckpointError": "errors",
    "CheckpointNotFoundError": "errors",
    "Clicks": "tasks.clicks",
    "Client": "client",
    "Concept": "inference.concepts",
    "Embedding": "inference.embedding",
    "ImageDecodeError": "errors",
    "InferenceError": "errors",
    "Instance": "results.instance",
    "InvalidRequestError": "errors",
    "LoadedImage": "images",
    "MaskError": "errors",
    "PromptError": "errors",
    "S3segError": "errors",
    "Segmentation": "results.segmentation",
    "Segmenter": "inference.segmenter",
    "local": "app",
    "merge": "results.combine",
    "video_frames": "images.video",
    "without_overlaps": "results.combine",
}
_MODULES = {"bulk": "bulk", "draw": "results.draw", "export": "results.export"}

__all__ = [
    "AsyncClient",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Clicks",
    "Client",
    "Concept",
    "Embedding",
    "ImageDecodeError",
    "InferenceError",
    "Instance",
    "InvalidRequestError",
    "LoadedImage",
    "MaskError",
    "PromptError",
    "S3segError",
    "Segmentation",
    "Segmenter",
    "__version__",
    "bulk",
    "draw",
    "export",
    "local",
    "merge",
    "video_frames",
    "without_overlaps",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import s3seg`` alone imports nothing heavy."""
    if name in _MODULES:
        value = import_module(f"s3seg.{_MODULES[name]}")
    elif name in _NAMES:
        value = getattr(import_module(f"s3seg.{_NAMES[name]}"), name)
    else:
        raise AttributeError(f"module 's3seg' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

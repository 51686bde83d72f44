"""Say what you are looking for, get its masks.

import s3seg

seg = s3seg.Segmenter()
result = seg.segment("park.png", "cat")
result.overlay().save("cats.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from s3seg.version import __version__

if TYPE_CHECKING:
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
    from s3seg.segmentation import Instance, Segmentation
    from s3seg.segmenter import Embedding, Segmenter

_HOME = {
    "AsyncClient": "client",
    "CheckpointError": "errors",
    "CheckpointNotFoundError": "errors",
    "Client": "client",
    "Embedding": "segmenter",
    "ImageDecodeError": "errors",
    "InferenceError": "errors",
    "Instance": "segmentation",
    "InvalidRequestError": "errors",
    "LoadedImage": "images",
    "MaskError": "errors",
    "PromptError": "errors",
    "S3segError": "errors",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "local": "app",
}

__all__ = [
    "AsyncClient",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Client",
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
    "local",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import s3seg`` alone imports nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module 's3seg' has no attribute {name!r}")
    value = getattr(import_module(f"s3seg.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

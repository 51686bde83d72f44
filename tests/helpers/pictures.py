"""Small encoded pictures, and photographs."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

from PIL import Image


def encoded(image_format: str = "PNG", size: tuple[int, int] = (8, 6), **options: object) -> bytes:
    """A red picture; ``size`` is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, format=image_format, **options)
    return buffer.getvalue()


def photograph(name: str) -> Path:
    """A photograph that scikit-image installs, such as "chelsea.png", a cat."""
    return Path(str(files("skimage"))) / "data" / name

"""Small encoded pictures."""

from __future__ import annotations

import io

from PIL import Image


def encoded(image_format: str = "PNG", size: tuple[int, int] = (8, 6), **options: object) -> bytes:
    """A red picture; ``size`` is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, format=image_format, **options)
    return buffer.getvalue()

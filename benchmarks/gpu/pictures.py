"""Pictures to measure with: JPEGs of two megapixels that no cache has seen."""

from __future__ import annotations

import secrets
from io import BytesIO

from PIL import Image

from benchmarks.gpu.timing import ROOT

PROMPTS = ("car", "tree", "house", "star", "cup", "dog")
_WIDTH = 1632  # 2.13 megapixels: the example pictures are 5 : 4


def make_jpeg(name: str = "street", *, quick: bool) -> bytes:
    """Enlarge an example picture to two megapixels; ``quick`` makes a small one."""
    picture = Image.open(ROOT / "examples" / "pictures" / f"{name}.png").convert("RGB")
    width = 204 if quick else _WIDTH
    size = (width, round(width * picture.height / picture.width))
    buffer = BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def unique(jpeg: bytes) -> bytes:
    """The same picture with other bytes: what follows the end of a JPEG is ignored."""
    return jpeg + secrets.token_bytes(16)

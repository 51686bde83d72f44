"""A small picture of noise, as pixels, as a PNG and as a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def png(pixels: np.ndarray = NOISE) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    path.write_bytes(PNG)
    return path


def named_buffer(name: object) -> io.BytesIO:
    buffer = io.BytesIO(PNG)
    buffer.name = name
    return buffer

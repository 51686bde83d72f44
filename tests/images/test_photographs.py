"""The guess whether a picture is a photograph. Its error rates on many pictures: `python -m benchmarks photographs`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3seg import images
from s3seg.images.photographs import looks_like_photograph
from tests.helpers.pictures import photograph

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "motorcycle_left.png",
    "ihc.png",
)


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_recognised_in_colour_in_grey_compressed_and_noisy(name: str) -> None:
    pixels = images.load(photograph(name)).pixels
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))
    noise = np.random.default_rng(0).normal(0, 6, pixels.shape)
    for variant in (pixels, grey, compressed(pixels, 40), (pixels + noise).clip(0, 255).astype(np.uint8)):
        assert looks_like_photograph(variant)


@pytest.mark.parametrize("name", ["kitchen_table", "park", "shapes", "street"])
def test_drawings_are_not_taken_for_photographs(name: str) -> None:
    assert not looks_like_photograph(images.load(PICTURES / f"{name}.png").pixels)


@pytest.mark.parametrize("side", [97, 224, 700])
def test_a_drawing_remains_one_compressed_noisy_enlarged_and_in_any_size(side: int) -> None:
    y, x = np.mgrid[:side, :side] / side
    drawing = np.full((side, side, 3), (250, 240, 220), np.uint8)
    drawing[(y - 0.4) ** 2 + (x - 0.5) ** 2 < 0.08] = (200, 30, 40)
    drawing[y > 0.8] = (90, 160, 70)
    noise = np.random.default_rng(0).normal(0, 8, drawing.shape)
    enlarged = np.asarray(Image.fromarray(drawing).resize((900, 600), Image.Resampling.BICUBIC))
    for variant in (drawing, compressed(drawing, 30), (drawing + noise).clip(0, 255).astype(np.uint8), enlarged):
        assert not looks_like_photograph(variant)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3, 2)])
def test_the_smallest_pictures_are_looked_at_too(size: tuple[int, int]) -> None:
    assert not looks_like_photograph(np.zeros((*size, 3), np.uint8))

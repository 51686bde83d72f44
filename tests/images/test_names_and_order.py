"""Pairs of a name and a picture, and arrays in BGR order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from s3seg import images
from s3seg.errors import ImageDecodeError
from s3seg.images.channel_order import looks_like_bgr

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
ARRAY = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)


def test_a_pair_gives_the_picture_its_name():
    assert images.load(("frame-1", ARRAY)).source == "frame-1"
    assert images.load(("park", PICTURES / "park.png")).source == "park"
    assert images.load(("other", images.load(ARRAY))).source == "other"
    with pytest.raises(ImageDecodeError, match=r"frame-2.*batch"):
        images.load(("frame-2", ARRAY[None]))


def test_what_opencv_reads_is_the_same_picture():
    array = cv2.imread(str(PICTURES / "park.png"))
    loaded = images.load(array, bgr=True)
    assert np.array_equal(loaded.pixels, images.load(PICTURES / "park.png").pixels)
    assert loaded.steps == ("BGR turned into RGB",)
    with_alpha = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    assert np.array_equal(images.load(with_alpha, bgr=True).pixels, loaded.pixels)


@pytest.mark.parametrize("source", [PICTURES / "park.png", Image.new("RGB", (3, 3)), images.load(ARRAY)])
def test_only_arrays_can_be_bgr(source):
    with pytest.raises(ImageDecodeError, match="for arrays"):
        images.load(source, bgr=True)


def test_exchanged_skies_are_noticed_and_right_ones_are_not():
    for name in ("park", "street"):
        pixels = images.load(PICTURES / f"{name}.png").pixels
        assert not looks_like_bgr(pixels)
        assert looks_like_bgr(np.ascontiguousarray(pixels[..., ::-1]))


def test_grey_and_tiny_pictures_are_no_reason_for_a_guess():
    assert not looks_like_bgr(np.full((1, 1, 3), 200, np.uint8))
    assert not looks_like_bgr(np.repeat(ARRAY[..., :1], 3, axis=-1))

"""Decoding is refused beyond a budget of memory, and takes no more than the estimate says."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3seg import images
from s3seg.errors import ImageDecodeError
from tests.images.measure_memory import bytes_per_pixel


def _encode(picture: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "format_name", "options", "needed"),
    [
        ("L", "PNG", {}, 4),
        ("I;16", "PNG", {}, 5),
        ("RGB", "PNG", {}, 7),
        ("RGBA", "PNG", {}, 7),
        ("RGB", "JPEG", {}, 7),
        ("RGB", "JPEG", {"progressive": True}, 10),
        ("RGB", "WEBP", {}, 18),
        ("RGB", "JPEG2000", {}, 28),
        ("RGB", "TIFF", {}, 10),  # one strip, of which libtiff may hold two copies
    ],
)
def test_the_budget_depends_on_format_and_mode(mode: str, format_name: str, options: dict, needed: int) -> None:
    encoded = _encode(Image.new(mode, (100, 80)), format_name, **options)
    assert images.load(encoded, max_memory=needed * 8000).size == (80, 100)
    with pytest.raises(ImageDecodeError, match=r"a: too large: decoding this .* GB of memory, .* make it smaller$"):
        images.load(encoded, name="a", max_memory=needed * 8000 - 1)


def test_a_progressive_jpeg_needs_its_coefficients_when_it_is_reduced_too() -> None:
    encoded = _encode(Image.new("RGB", (800, 800)), "JPEG", progressive=True)
    assert images.load(encoded, reduce_to=100, max_memory=800 * 800 * 7).size == (100, 100)
    with pytest.raises(ImageDecodeError, match="make it smaller"):
        images.load(encoded, reduce_to=100, max_memory=800 * 800 * 6)
    assert images.load(_encode(Image.new("RGB", (800, 800)), "JPEG"), reduce_to=100, max_memory=800 * 800).height == 100


def test_a_pil_picture_is_refused_before_it_is_decoded_and_not_after() -> None:
    encoded = _encode(Image.new("RGB", (100, 80)), "PNG")
    with Image.open(io.BytesIO(encoded)) as picture:
        with pytest.raises(ImageDecodeError, match="make it smaller"):
            images.load(picture, max_memory=8000)
        picture.load()
        assert images.load(picture, max_memory=8000).size == (80, 100)


def _png(side: int, depth: int) -> bytes:
    """Encode a square of RGBA zeros: transparent, so that all of it is composited."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, 6, 0, 0, 0))
    compressor, row = zlib.compressobj(1), bytes(1 + side * 4 * depth // 8)
    pixels = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read as Linux reports it")
@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_pictures_take_no_more_memory_than_others(tmp_path: Path, depth: int) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(_png(64, depth))
    large.write_bytes(_png(4000, depth))
    assert 7 < bytes_per_pixel(small, large) < 11  # 4 of Pillow's picture, 3 of the result, and strips


def test_strips_join_without_a_seam() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 5, 4), dtype=np.uint8)
    whole = Image.alpha_composite(Image.new("RGBA", (5, 700), "white"), Image.fromarray(noise)).convert("RGB")
    for source in (noise, Image.fromarray(noise), _encode(Image.fromarray(noise), "PNG")):
        assert np.array_equal(images.load(source).pixels, np.asarray(whole))

"""Label maps as PNG: the value of a pixel is the number of the instance, or of the prompt, that it belongs to."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.masks import RLE
from s3seg.results.palette import palette_color


def encode_label_map(results: Sequence[Columns]) -> bytes:
    """Draw the instances of one or more results on one picture as a label map.

    Instances are numbered from 1 by falling score over all results; 0 is background. Where instances overlap, the one
    with the higher score is visible.

    Args:
        results: At least one, all on the same picture.

    Returns:
        A PNG of the picture's size with 8 bits per pixel, or 16 if there are more than 255 instances.

    Raises:
        MaskError: The results differ in size, or there are more than 65535 instances.
    """
    return encode_png(masks.label_map([rle for rle, _ in _by_score(results)], results[0].size))


def encode_binary_mask(results: Sequence[Columns]) -> bytes:
    """Draw the pixels in any instance: 255, and 0 for background; otherwise as `encode_label_map`."""
    rles = [rle for rle, _ in _by_score(results)]
    union = masks.decode(masks.union(rles)) if rles else np.zeros(results[0].size, np.bool_)
    return encode_png(union.view(np.uint8) * np.uint8(255))


def encode_palette_mask(results: Sequence[Columns]) -> bytes:
    """Draw the label map with a palette: the k-th instance has the number (k - 1) % 255 + 1 and its colour."""
    numbers = masks.label_map([rle for rle, _ in _by_score(results)], results[0].size)
    return _with_palette(np.where(numbers, (numbers - 1) % 255 + 1, 0).astype(np.uint8))


def encode_class_map(results: Sequence[Columns]) -> bytes:
    """Draw which prompt each pixel belongs to, with a palette: 1 for the first prompt, 2 for the next.

    Raises:
        InvalidRequestError: There are more than 255 prompts.
    """
    prompts = list(dict.fromkeys(result.prompt for result in results))
    if len(prompts) > 255:
        raise InvalidRequestError(f"a map of classes holds 255 prompts at most, got {len(prompts)}")
    scored = _by_score(results)
    numbers = masks.label_map([rle for rle, _ in scored], results[0].size)
    classes = np.array([0, *(1 + prompts.index(prompt) for _, prompt in scored)], np.uint8)
    return _with_palette(classes[numbers])


def _by_score(results: Sequence[Columns]) -> list[tuple[RLE, str]]:
    """Return the mask and the prompt of every instance, the highest score first."""
    scored = [
        (score, rle, result.prompt) for result in results for score, rle in zip(result.scores, result.rles, strict=True)
    ]
    scored.sort(key=lambda one: -one[0])
    return [(rle, prompt) for _, rle, prompt in scored]


def _with_palette(numbers: np.ndarray) -> bytes:
    colors = [(0, 0, 0), *(palette_color(k) for k in range(int(numbers.max(initial=0))))]
    return encode_png(numbers, palette=colors)


def encode_png(grey: np.ndarray, *, palette: Sequence[tuple[int, int, int]] | None = None) -> bytes:
    """Encode a greyscale image, or one of numbers of colours, as PNG.

    Label maps consist of long runs of equal bytes. Without PNG filters and with zlib's run-length strategy, encoding
    one takes a third of the time that Pillow needs (it tries every filter on every row), and the file is no larger.

    Args:
        grey: (H, W) uint8 or uint16.
        palette: RGB of each number; then ``grey`` is uint8.
    """
    height, width = grey.shape
    depth = grey.dtype.itemsize
    rows = np.zeros((height, 1 + depth * width), np.uint8)  # each row starts with its filter type: 0, none
    rows[:, 1:] = grey.astype(grey.dtype.newbyteorder(">")).view(np.uint8)
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    colors = () if palette is None else ((b"PLTE", bytes(value for color in palette for value in color)),)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * depth, 3 if colors else 0, 0, 0, 0)),
        *colors,
        (b"IDAT", deflate.compress(rows.data) + deflate.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )

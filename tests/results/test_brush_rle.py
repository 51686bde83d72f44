"""Label Studio's brush masks, read back with a decoder written from the format's description."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.results.brush_rle import encode_brush


class Bits:
    def __init__(self, data):
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def read(self, count):
        self.at += count
        return int(self.text[self.at - count : self.at], 2)


def decode_brush(data, size):
    """What the format's reference decoder does."""
    bits = Bits(data)
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        repeated = bits.read(1)
        length = bits.read(sizes[bits.read(2)]) + 1
        values += [bits.read(word)] * length if repeated else [bits.read(word) for _ in range(length)]
    assert len(bits.text) - bits.at < 8
    return np.array(values, np.uint8).reshape(*size, 4)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31), st.sampled_from([0.02, 0.5, 0.98, 0, 1]))
def test_every_mask_is_read_back(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    decoded = decode_brush(encode_brush(mask), mask.shape)
    assert np.array_equal(decoded, np.repeat(mask[:, :, None], 4, axis=2) * np.uint8(255))


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 5, 64, 65, 16384, 16385, 40000])
def test_runs_at_the_limits_of_the_lengths_are_read_back(pixels):
    mask = np.zeros((1, 2 * pixels + 1), bool)
    mask[0, pixels : 2 * pixels] = True
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape)[:, :, 3] == 255, mask)

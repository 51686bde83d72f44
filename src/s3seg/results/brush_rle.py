"""Label Studio's run-length encoding of brush masks: a stream of bits, the ``rle-pack`` of thi.ng/umbrella.

    32 bits  number of values              then, until all values are there:
     5 bits  bits of a value, less 1         1 bit   1: one value, repeated; 0: as many values as the length says
     4 x 4   bits of the four lengths,       2 bits  which of the four lengths follows
             less 1 each                     n bits  the length, less 1; then the value or the values

The values are those of the picture's rows, four for each pixel (red, green, blue, alpha), 255 inside the mask.
"""

from __future__ import annotations

import numpy as np

_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encode a mask.

    Args:
        mask: (H, W) bool, with at least one pixel.

    Returns:
        The bytes of the stream, as Label Studio has them in JSON.
    """
    flat = np.ascontiguousarray(mask).ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    inside = bool(flat[0])
    for length in lengths.tolist():
        value = "1" * _VALUE_BITS if inside else "0" * _VALUE_BITS
        inside = not inside
        while length:
            part = min(length, 1 << _LENGTH_BITS[-1])
            index = next(k for k, size in enumerate(_LENGTH_BITS) if part <= 1 << size)
            bits.append(f"1{index:02b}{part - 1:0{_LENGTH_BITS[index]}b}{value}")
            length -= part
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8))

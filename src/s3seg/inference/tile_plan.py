"""Which tiles a large picture is cut into."""

from __future__ import annotations

import math

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results.windows import Window
from s3seg.tasks.tiles import Tile

OVERLAP = 0.25
"""The share of a tile's side by which neighbours overlap, at least."""
MAX_TILES = 10_000
"""Tiles that a picture may be cut into."""


def plan_tiles(size: tuple[int, int], tile: Tile, *, input_side: int, max_tiles: int = MAX_TILES) -> list[Window]:
    """Cut a picture into overlapping tiles, row by row.

    Args:
        size: (height, width) of the picture.
        tile: As `checked_tile` returns it.
        input_side: The side of the network's input. With "auto", tiles have this side, so that nothing is made smaller,
            and a picture that is at most half as large again is not cut.
        max_tiles: The most tiles that are allowed.

    Returns:
        Tiles of one size; none if the picture fits into one.

    Raises:
        InvalidRequestError: There would be more tiles than allowed; the message says which side would be right.
    """
    side = input_side if tile == "auto" else tile
    if max(size) <= (1.5 * side if tile == "auto" else side):
        return []
    if (count := _count(size[0], side) * _count(size[1], side)) > max_tiles:
        raise InvalidRequestError(
            f"tiles of {side} pixels would be {count}, more than {max_tiles}; choose larger ones, "
            f"such as tile={_side_for(size, side, max_tiles)}"
        )
    rows, columns = (_starts(length, side) for length in size)
    height, width = min(side, size[0]), min(side, size[1])
    return [(y, x, y + height, x + width) for y in rows for x in columns]


def _starts(length: int, side: int) -> list[int]:
    """Return the first pixel of each tile along an axis, evenly spread."""
    if length <= side:
        return [0]
    return np.linspace(0, length - side, _count(length, side)).round().astype(int).tolist()


def _count(length: int, side: int) -> int:
    """Return the number of tiles along an axis."""
    return 1 if length <= side else 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))


def _side_for(size: tuple[int, int], side: int, max_tiles: int) -> int:
    """Return a side, in steps of about 10 %, with which there are not too many tiles."""
    while _count(size[0], side) * _count(size[1], side) > max_tiles:
        side = max(side + 1, int(round(1.1 * side, -1)))
    return side

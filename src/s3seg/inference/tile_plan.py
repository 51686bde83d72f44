"""Which tiles a large picture is cut into."""

from __future__ import annotations

from typing import Literal

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.inference.prompts import checked_positive
from s3seg.results.windows import Window

Tile = int | Literal["auto"]
"""The side of a tile in pixels, or "auto" for the side of the network's input."""

OVERLAP = 0.25
"""The share of a tile's side by which neighbours overlap, at least."""
_SMALLEST = 32  # pixels
_MOST_TILES = 10_000


def checked_tile(tile: object) -> Tile | None:
    """Return a valid ``tile`` argument.

    Raises:
        InvalidRequestError: It is neither None, "auto" nor a whole number of 32 or more.
    """
    if tile is None or tile == "auto":
        return tile  # type: ignore[return-value]
    if isinstance(tile, str):
        raise InvalidRequestError(f"tile is 'auto' or a number of pixels, got {tile!r:.60}")
    side = checked_positive("tile", tile)
    if side < _SMALLEST:
        raise InvalidRequestError(f"a tile has {_SMALLEST} pixels or more a side, got {side}")
    return side


def plan_tiles(size: tuple[int, int], tile: Tile, *, input_side: int) -> list[Window]:
    """Cut a picture into overlapping tiles, row by row.

    Args:
        size: (height, width) of the picture.
        tile: As `checked_tile` returns it.
        input_side: The side of the network's input. With "auto", tiles have this side, so that nothing is made smaller,
            and a picture that is at most half as large again is not cut.

    Returns:
        Tiles of one size; none if the picture fits into one.

    Raises:
        InvalidRequestError: There would be more than 10,000 tiles.
    """
    side = input_side if tile == "auto" else tile
    if max(size) <= (1.5 * side if tile == "auto" else side):
        return []
    rows, columns = (_starts(length, side) for length in size)
    if len(rows) * len(columns) > _MOST_TILES:
        raise InvalidRequestError(
            f"tiles of {side} pixels would be {len(rows) * len(columns)}, more than {_MOST_TILES}; choose larger ones"
        )
    height, width = min(side, size[0]), min(side, size[1])
    return [(y, x, y + height, x + width) for y in rows for x in columns]


def _starts(length: int, side: int) -> list[int]:
    """Return the first pixel of each tile along an axis, evenly spread."""
    if length <= side:
        return [0]
    count = 1 + int(np.ceil((length - side) / (side * (1 - OVERLAP))))
    return np.linspace(0, length - side, count).round().astype(int).tolist()

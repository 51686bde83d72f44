"""Tiles: whether, and in which size, parts of a picture are looked at one by one."""

from __future__ import annotations

import contextlib
import operator
from typing import Literal, SupportsIndex, cast

from s3seg.errors import InvalidRequestError

Tile = int | Literal["auto"]
"""The side of a tile in pixels, or "auto" for the side of the network's input."""

MIN_TILE = 32
"""The smallest side of a tile, in pixels."""

MAX_TILE = 100_000
"""The largest side of a tile that a service takes; no picture that it takes is as large."""


def checked_tile(tile: object) -> Tile | None:
    """Return a valid ``tile`` argument.

    Raises:
        InvalidRequestError: It is neither None, "auto" nor a whole number of 32 or more.
    """
    if tile is None or tile == "auto":
        return tile  # type: ignore[return-value]
    side = 0
    if not isinstance(tile, bool):
        with contextlib.suppress(TypeError):
            side = operator.index(cast(SupportsIndex, tile))
    if side < MIN_TILE:
        raise InvalidRequestError(f"tile is 'auto' or a whole number of pixels, {MIN_TILE} or more, got {tile!r:.60}")
    return side


def checked_tile_of_service(tile: object) -> Tile | None:
    """Return a ``tile`` that a service takes.

    Raises:
        InvalidRequestError: As `checked_tile`, or it is more than `MAX_TILE`.
    """
    checked = checked_tile(tile)
    if isinstance(checked, int) and checked > MAX_TILE:
        raise InvalidRequestError(f"tile is at most {MAX_TILE} pixels, got {checked}")
    return checked

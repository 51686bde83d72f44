"""Boundaries of a mask as polygons with holes, exact on pixel edges.

A pixel (x, y) is the square [x, x+1] × [y, y+1], so ring vertices are integers and filling the rings reproduces
the mask exactly. A polygon is one 4-connected part of the mask: its exterior first, then its holes. Rings
never cross or touch themselves, which makes the polygons valid in the OGC sense (shapely, PostGIS).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Ring: TypeAlias = np.ndarray
"""(K, 2) int32 vertices (x, y), not closed; the mask lies to the right of the path when y points down."""
Polygon: TypeAlias = list[Ring]
"""The exterior ring (positive shoelace area), then its holes (negative)."""


def trace_polygons(mask: np.ndarray, *, offset: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace the boundary of every 4-connected part of a mask.

    Args:
        mask: (H, W) bool.
        offset: (y, x) of the mask's first pixel in the picture, added to every vertex.

    Returns:
        One polygon for each part, ordered by topmost row, then left to right; empty for an empty mask.
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    x, y, follower = _corners(padded)
    rings = _split_into_rings(x, y, follower)
    shift = np.array([offset[1], offset[0]])
    areas = [_shoelace(x[ring], y[ring]) for ring in rings]
    owner = _exterior_of_each_ring(x, y, follower, rings, areas)
    polygons = {k: [] for k, area in enumerate(areas) if area > 0}
    for k, ring in enumerate(rings):
        vertices = (np.stack([x[ring], y[ring]], axis=1) + shift).astype(np.int32)
        polygon = polygons[owner[k]]
        polygon.insert(0 if areas[k] > 0 else len(polygon), vertices)
    return list(polygons.values())


def joined_rings(rings: Sequence[Ring]) -> Ring:
    """Join all rings into one path (K, 2) that enters and leaves each further ring over the same bridge.

    Filling the path gives what the rings enclose, holes left out, in tools that know only paths.
    """
    path = rings[0]
    for ring in rings[1:]:
        exit_ = _nearest(path, ring[0])
        entry = _nearest(ring, path[exit_])
        exit_ = _nearest(path, ring[entry])
        detour = np.roll(ring, -entry, axis=0)
        path = np.concatenate([path[: exit_ + 1], detour, detour[:1], path[exit_:]])
    return path


def _nearest(vertices: np.ndarray, point: np.ndarray) -> int:
    return int(np.argmin(np.sum((vertices.astype(np.float64) - point) ** 2, axis=1)))


def _corners(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the corners of the boundary and, for each, the next corner when walking with the mask on the right.

    A vertex where one or three of the four pixels around it are set is one corner. Where two set pixels touch
    diagonally there are two corners, each turning around its own pixel: this keeps parts 4-connected.

    Returns:
        x, y (C,) int64, and the index of the follower (C,) int64.
    """
    around = padded.view(np.uint8)  # the four pixels around a vertex as bits: TL 1, TR 2, BL 4, BR 8
    around = around[:-1, :-1] | around[:-1, 1:] << 1 | around[1:, :-1] << 2 | around[1:, 1:] << 3
    at = np.flatnonzero((around != 0) & (around != 15))
    pattern, (ys, xs) = around.ravel()[at], np.unravel_index(at, around.shape)
    parts = []
    for bit, to_left, to_up in ((1, 1, 1), (2, 0, 1), (4, 1, 0), (8, 0, 0)):
        for is_convex, patterns in ((True, (bit, 6 if bit in (2, 4) else 9)), (False, (15 - bit,))):
            found = np.isin(pattern, patterns)
            # Around the TL or BR pixel the path leaves sideways; at a concave corner it runs the other way.
            flags = (to_left, to_up, (to_left == to_up) == is_convex)
            parts.append((xs[found], ys[found], *(np.full(int(found.sum()), flag) for flag in flags)))
    x, y, to_left, to_up, leaves_sideways = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Along a grid line corners pair up into edges; at a shared vertex the one that ends an edge sorts first.
    sideways = _partners(np.lexsort((1 - to_left, x, y)))
    updown = _partners(np.lexsort((1 - to_up, y, x)))
    return x, y, np.where(leaves_sideways, sideways, updown)


def _partners(order: np.ndarray) -> np.ndarray:
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _split_into_rings(x: np.ndarray, y: np.ndarray, follower: np.ndarray) -> list[np.ndarray]:
    """Follow the corners into rings; when a path returns to a vertex, the part since then becomes its own ring."""
    vertex = (y * (int(x.max(initial=0)) + 1) + x).tolist()
    after = follower.tolist()
    met_twice = set(_repeated(vertex))
    seen = bytearray(len(after))
    rings = []
    for start in np.lexsort((x, y)).tolist():
        path: list[int] = []
        places: dict[int, int] = {}  # vertices of `path` that two corners share -> their index in the path
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            if vertex[corner] in met_twice:
                if (since := places.get(vertex[corner])) is not None:
                    rings.append(np.array(path[since:]))
                    for inner in path[since:]:
                        places.pop(vertex[inner], None)
                    del path[since:]
                places[vertex[corner]] = len(path)
            path.append(corner)
            corner = after[corner]
        if path:
            rings.append(np.array(path))
    return rings


def _repeated(vertex: list[int]) -> list[int]:
    values, counts = np.unique(np.array(vertex, dtype=np.int64), return_counts=True)
    return values[counts > 1].tolist()


def _shoelace(x: np.ndarray, y: np.ndarray) -> int:
    """Return twice the signed area."""
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _exterior_of_each_ring(
    x: np.ndarray, y: np.ndarray, follower: np.ndarray, rings: list[np.ndarray], areas: list[int]
) -> list[int]:
    """Return, for each ring, the index of the exterior ring of its part (for an exterior, its own index).

    The row of mask pixels that ends at a hole's leftmost edge starts at an edge of the same part: at its
    exterior, or at another hole that begins further left and is therefore known already.
    """
    owner = list(range(len(rings)))
    holes = [k for k, area in enumerate(areas) if area < 0]
    if not holes:
        return owner
    ring_of = np.empty(len(x), dtype=np.int64)
    for k, ring in enumerate(rings):
        ring_of[ring] = k
    upright = np.flatnonzero(x == x[follower])  # vertical edges, cut below into pieces one pixel long
    top = np.minimum(y[upright], y[follower[upright]])
    length = np.abs(y[upright] - y[follower[upright]])
    edge = np.repeat(np.arange(len(upright)), length)
    row = top[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(length) - length, length)
    width = int(x.max()) + 1
    place = row * width + x[upright][edge]
    order = np.argsort(place)
    place, edge_ring = place[order], ring_of[upright][edge][order]
    leftmost = {k: rings[k][np.lexsort((y[rings[k]], x[rings[k]]))[0]] for k in holes}
    for k in sorted(holes, key=lambda k: x[leftmost[k]]):
        corner = leftmost[k]  # the topmost of the leftmost corners: its edge runs down from it
        left_neighbour = np.searchsorted(place, y[corner] * width + x[corner]) - 1
        owner[k] = owner[edge_ring[left_neighbour]]
    return owner

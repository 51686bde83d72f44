"""Leave out vertices of polygons without moving any outline by more than a tolerance, and without breaking them.

Each ring is simplified by itself (Douglas and Peucker, 1973): every vertex that is left out lies within the tolerance
of the edge that replaces it, so the Hausdorff distance between the outlines before and after is at most the tolerance.
That alone could make rings cross, or leave a hole outside of its part. Rings that do are simplified again with half of
the tolerance, until the polygons are valid, as those of `s3seg.results.polygons` are.
"""

from __future__ import annotations

import numpy as np

from s3seg.results.polygons import Polygon, Ring
from s3seg.results.ring_conflicts import conflicting_rings

_SMALLEST = 0.25  # pixels; below this, only vertices on straight lines are left out


def simplify_polygons(polygons: list[Polygon], tolerance: float) -> list[Polygon]:
    """Simplify the polygons of one mask.

    Args:
        polygons: As `s3seg.results.polygons.trace_polygons` returns them.
        tolerance: Pixels by which an outline may move, 0 or more.

    Returns:
        As many polygons, with as many rings; their vertices are vertices of the originals, three or more for each ring.
    """
    rings = [ring for polygon in polygons for ring in polygon]
    if not tolerance > 0 or not rings:
        return polygons
    tolerances = [tolerance] * len(rings)
    simple = [simplify_ring(ring, tolerance) for ring in rings]
    while conflicts := conflicting_rings(rings, simple):
        for k in conflicts:
            tolerances[k] = tolerances[k] / 2 if tolerances[k] > _SMALLEST else 0.0
            simple[k] = simplify_ring(rings[k], tolerances[k]) if tolerances[k] else rings[k]
    remaining = iter(simple)
    return [[next(remaining) for _ in polygon] for polygon in polygons]


def simplify_ring(ring: Ring, tolerance: float) -> Ring:
    """Leave out vertices of one ring that are close to the line between those that are kept (Douglas and Peucker).

    Nothing is done about rings that then touch or cross: it is for shapes that people will edit.

    Args:
        ring: (K, 2) vertices, not closed.
        tolerance: Largest distance in pixels of a vertex that is left out.

    Returns:
        The kept vertices, in order: at least three, if there are as many.
    """
    count = len(ring)
    if count <= 3:
        return ring
    start = int(np.lexsort((ring[:, 1], ring[:, 0]))[0])
    points = np.roll(ring, -start, axis=0).astype(np.float64)
    far = int(np.argmax(np.sum((points - points[0]) ** 2, axis=1)))
    path = np.concatenate([points, points[:1]])
    keep = np.zeros(count + 1, bool)
    keep[[0, far, count]] = True
    spans = [(0, far), (far, count)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distances = _distances(path[first + 1 : last], path[first], path[last])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    if np.count_nonzero(keep[:-1]) < 3:  # the ring is thinner than the tolerance: a triangle is the least it can be
        keep[1 + int(np.argmax(_distances(path[1:-1], path[0], path[far])))] = True
    return np.roll(ring, -start, axis=0)[keep[:-1]]


def _distances(points: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the distances (K,) of points from the edge between two others."""
    edge, offsets = last - first, points - first
    along = np.clip(offsets @ edge / max(float(edge @ edge), 1e-12), 0, 1)
    return np.hypot(*(offsets - along[:, None] * edge).T)

"""The rings of polygons as other formats have them: one path, or the geometry of GeoJSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from s3seg.results.polygons import Polygon, Ring


def as_path(rings: list[Ring]) -> np.ndarray:
    """Join rings into one path (K, 2) that enters and leaves each further ring over the same bridge."""
    path = rings[0]
    for ring in rings[1:]:
        exit_ = _nearest(path, ring[0])
        entry = _nearest(ring, path[exit_])
        exit_ = _nearest(path, ring[entry])
        detour = np.roll(ring, -entry, axis=0)
        path = np.concatenate([path[: exit_ + 1], detour, detour[:1], path[exit_:]])
    return path


def as_geometry(polygons: list[Polygon]) -> dict[str, Any] | None:
    """Return a Polygon or a MultiPolygon of GeoJSON, with closed rings; None for no polygons."""
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if not closed:
        return None
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _nearest(vertices: np.ndarray, point: np.ndarray) -> int:
    return int(np.argmin(np.sum((vertices.astype(np.float64) - point) ** 2, axis=1)))

"""Polygons as geometries of GeoJSON."""

from __future__ import annotations

from typing import Any

from s3seg.results.polygons import Polygon


def as_geometry(polygons: list[Polygon]) -> dict[str, Any] | None:
    """Return a Polygon or a MultiPolygon of GeoJSON, with closed rings; None for no polygons."""
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if not closed:
        return None
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}

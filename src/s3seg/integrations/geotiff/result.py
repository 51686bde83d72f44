"""What was found in a raster, and its GeoJSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.files import json_text, write_atomically
from s3seg.results.masks import RLE
from s3seg.results.polygons import Polygon
from s3seg.results.segmentation import ModelInfo

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

    from s3seg.integrations.geotiff.raster import Raster

Coordinates = Literal["wgs84", "raster"]
"""Of GeoJSON: longitude and latitude, as RFC 7946 requires, or those of the raster."""

_DIGITS = 9  # of a degree: a tenth of a millimetre


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeoSegmentation:
    """All instances of one prompt in a raster, the highest score first.

    Attributes:
        prompt: The prompt.
        size: (height, width) of the raster in pixels.
        rles: N masks of that size.
        scores: (N,) float32, 0..1.
        threshold: Instances at or below this score were left out.
        crs: The coordinate reference system of the raster, or None if it names none.
        transform: From (column, row) of pixel corners to coordinates.
        bands: The bands that were read as red, green and blue.
        scale: The values that became 0 and 255; None if values were used as they are.
        tiles: How many windows were looked at.
        model: The network, and the device and precision it ran with.
        source: The path of the raster.
    """

    prompt: str
    size: tuple[int, int]
    rles: tuple[RLE, ...]
    scores: np.ndarray
    threshold: float
    crs: CRS | None
    transform: Affine
    bands: tuple[int, int, int]
    scale: tuple[float, float] | None
    tiles: int
    model: ModelInfo
    source: str

    def __len__(self) -> int:
        return len(self.rles)

    def __repr__(self) -> str:
        height, width = self.size
        return f"<GeoSegmentation {self.prompt!r}: {len(self)} instances in {self.source!r}, {width} x {height} pixels>"

    def to_geojson(self, *, crs: Coordinates = "wgs84", tolerance: float = 0.0) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection; see `geojson`."""
        return geojson([self], crs=crs, tolerance=tolerance)

    def save_geojson(self, path: str | os.PathLike[str], *, crs: Coordinates = "wgs84", tolerance: float = 0.0) -> None:
        """Write GeoJSON to a file, completely or not at all; see `geojson`."""
        write_atomically(path, json_text(self.to_geojson(crs=crs, tolerance=tolerance)))


def geojson(
    results: Sequence[GeoSegmentation], *, crs: Coordinates = "wgs84", tolerance: float = 0.0
) -> dict[str, Any]:
    """Build a GeoJSON FeatureCollection with a feature for each instance, ready for `json.dump`.

    Properties of a feature are ``prompt``, ``score``, ``pixels``, and ``area_m2`` if the raster is in a projected
    coordinate reference system: the area on its map. Outer rings run counterclockwise.

    Args:
        results: Of one raster, one for each prompt.
        crs: "wgs84" for longitude and latitude, as RFC 7946 requires; "raster" for the coordinates of the raster, which
            the member "crs" then names, as GDAL and QGIS expect it.
        tolerance: Pixels by which outlines may move, to leave out vertices; 0 moves none.

    Raises:
        InvalidRequestError: "wgs84" was asked for, and the raster names no coordinate reference system, or its
            coordinates have no longitude and latitude.
    """
    if crs not in ("wgs84", "raster"):
        raise InvalidRequestError(f'crs is "wgs84" or "raster", got {crs!r:.60}')
    first = results[0]
    if crs == "wgs84" and first.crs is None:
        raise _without_crs(first.source)
    features: list[dict[str, Any]] = []
    for result in results:
        square_metres = _square_metres(result)
        for rle, score in zip(result.rles, result.scores.tolist(), strict=True):
            pixels = masks.area(rle)
            area = {} if square_metres is None else {"area_m2": round(pixels * square_metres, 3)}
            features.append(
                {
                    "type": "Feature",
                    "id": len(features) + 1,
                    "geometry": _geometry(masks.polygons(rle, tolerance=tolerance), result.transform),
                    "properties": {"prompt": result.prompt, "score": round(score, 4), "pixels": pixels, **area},
                }
            )
    if crs == "wgs84":
        _to_wgs84(features, first.crs, first.source)
    return {"type": "FeatureCollection", "name": first.source, **_crs_member(first, crs), "features": features}


def _geometry(polygons: Sequence[Polygon], transform: Affine) -> dict[str, Any]:
    """Return polygons in coordinates of the raster, with outer rings counterclockwise and holes clockwise."""
    matrix = np.array([[transform.a, transform.b, transform.c], [transform.d, transform.e, transform.f]])
    is_mirrored = transform.determinant < 0  # as usual: rows go down, and northings up
    parts = []
    for polygon in polygons:
        rings = []
        for ring in polygon:
            path = np.concatenate([ring, ring[:1]])
            path = path[::-1] if is_mirrored else path
            rings.append((path @ matrix[:, :2].T + matrix[:, 2]).tolist())
        parts.append(rings)
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def check_coordinates(raster: Raster, crs: Coordinates) -> None:
    """Find out before a raster is searched whether `geojson` can give coordinates of it.

    Raises:
        InvalidRequestError: It cannot: neither the middle nor a corner has them. A picture of the whole Earth, whose
            corners are beside it, is not refused.
    """
    if crs != "wgs84":
        return
    if raster.crs is None:
        raise _without_crs(raster.path)
    height, width = raster.size
    problem: InvalidRequestError | None = None
    for place in ((width / 2, height / 2), (0, 0), (width, 0), (0, height), (width, height)):
        try:
            _transformed([{"type": "Point", "coordinates": raster.transform * place}], raster.crs, raster.path)
        except InvalidRequestError as err:
            problem = err
        else:
            return
    if problem is not None:
        raise problem


def _to_wgs84(features: Sequence[dict[str, Any]], crs: CRS | None, source: str) -> None:
    geometries = [feature["geometry"] for feature in features]
    moved = _transformed(geometries, crs, source) if geometries else []
    for feature, geometry in zip(features, moved, strict=True):
        feature["geometry"] = geometry


def _transformed(geometries: Sequence[dict[str, Any]], crs: CRS | None, source: str | Path) -> Sequence[dict[str, Any]]:
    from rasterio.warp import transform_geom

    try:
        return transform_geom(crs, "EPSG:4326", geometries, precision=_DIGITS)
    except Exception as err:  # of several kinds: of PROJ, GDAL and rasterio
        raise InvalidRequestError(
            f"{source}: has coordinates that cannot be turned into longitude and latitude ({err!s:.200}); use "
            'crs="raster"'
        ) from err


def _without_crs(source: str | Path) -> InvalidRequestError:
    return InvalidRequestError(
        f'{source}: names no coordinate reference system, so it has no longitudes; use crs="raster"'
    )


def _square_metres(result: GeoSegmentation) -> float | None:
    """Return the area of a pixel on the map; None without a projection."""
    if result.crs is None or not result.crs.is_projected:
        return None
    _, metres = result.crs.linear_units_factor
    return abs(result.transform.determinant) * metres**2


def _crs_member(result: GeoSegmentation, crs: Coordinates) -> dict[str, Any]:
    """Return the member that names the coordinates of the raster; RFC 7946 has none for WGS 84."""
    if crs == "wgs84" or result.crs is None:
        return {}
    authority = result.crs.to_authority()
    if authority is None:
        return {"crs_wkt": result.crs.to_wkt()}
    return {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:{}::{}".format(*authority)}}}

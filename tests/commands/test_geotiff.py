"""``s3seg geotiff``: from a raster to GeoJSON."""

from __future__ import annotations

import json

import numpy as np
import rasterio
from rasterio.transform import from_origin

from s3seg import images
from tests.commands.running import Command
from tests.helpers.small_things import circles


def test_a_raster_becomes_geojson(s3seg: Command, tmp_path):
    path = tmp_path / "map.tif"
    pixels = np.moveaxis(images.load(circles()).pixels, -1, 0)
    shape = {"count": 3, "height": 700, "width": 700, "dtype": "uint8"}
    place = from_origin(500_000, 5_400_000, 0.5, 0.5)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape) as file:
        file.write(pixels)
    done = s3seg("geotiff", path, "red circle", "-p", "blue star", "--tile", "300", "-o", tmp_path / "out.geojson")
    assert done.exit_code == 0, done.stderr
    assert "red circle: 9, blue star: 0" in done.stderr
    collection = json.loads((tmp_path / "out.geojson").read_text())
    assert len(collection["features"]) == 9
    assert "crs" not in collection
    options = (
        "--crs",
        "raster",
        "--tolerance",
        "1",
        "--bands",
        "1,2,3",
        "--scale",
        "0,255",
        "--threshold",
        "0.4",
        "-q",
    )
    done = s3seg("geotiff", path, "red circle", "--tile", "300", "-q", *options)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    for arguments, says in (
        (["--bands", "9"], "has 3 bands"),
        (["--bands", "x"], "--bands is"),
        (["--scale", "1"], "--scale is"),
        (["--scale", "5,1"], "two rising numbers"),
        (["--tile", "8"], "tile is"),
        (["--calibration", "none.json"], "none.json"),
    ):
        done = s3seg("geotiff", path, "red circle", *arguments)
        assert done.exit_code != 0
        assert says in done.stderr, done.stderr
    assert "no such file" in s3seg("geotiff", tmp_path / "none.tif", "cat").stderr


def test_outputs_that_cannot_be_written_are_told_before_the_model_is_loaded(s3seg: Command, tmp_path, monkeypatch):
    monkeypatch.setattr("s3seg.inference.segmenter.Segmenter", None)
    path = tmp_path / "map.tif"
    shape = {"count": 1, "height": 8, "width": 8, "dtype": "uint8"}
    place = from_origin(500_000, 5_400_000, 1, 1)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape) as file:
        file.write(np.ones((1, 8, 8), np.uint8))
    before = path.read_bytes()
    for output, says in ((tmp_path, "is a folder"), (path, "will not be overwritten")):
        done = s3seg("geotiff", path, "cat", "-o", output)
        assert done.exit_code == 2
        assert says in done.stderr
    assert path.read_bytes() == before
    done = s3seg("geotiff", path, "cat", "--threshold", "0.5", "--calibration", path)
    assert "leave out --threshold" in done.stderr


def test_coordinates_without_a_longitude_are_told_before_the_model_is_loaded(s3seg: Command, tmp_path, monkeypatch):
    monkeypatch.setattr("s3seg.inference.segmenter.Segmenter", None)
    path = tmp_path / "site.tif"
    shape = {"count": 1, "height": 8, "width": 8, "dtype": "uint8"}
    site = 'LOCAL_CS["site",UNIT["metre",1]]'
    with rasterio.open(path, "w", driver="GTiff", crs=site, transform=from_origin(0, 8, 1, 1), **shape) as file:
        file.write(np.ones((1, 8, 8), np.uint8))
    done = s3seg("geotiff", path, "cat")
    assert done.exit_code == 2, done.output
    assert 'use crs="raster"' in done.stderr

"""GeoTIFF: windows, bands, values and coordinates as rasterio has them, and nothing read but the file itself."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

import s3seg
from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.integrations.geotiff import GeoSegmentation, Raster, check_coordinates, geojson, segment_geotiff
from s3seg.results import masks
from s3seg.results.segmentation import ModelInfo
from s3seg.results.windows import place
from tests.helpers.small_things import circles

UTM = "EPSG:32633"
TRANSFORM = from_origin(500_000, 5_400_000, 0.5, 0.5)
MODEL = ModelInfo("m", "1", "cpu", "float32")


def write(path: Path, values: np.ndarray, *, crs=UTM, transform=TRANSFORM, **options) -> Path:
    """Write (bands, height, width) as GeoTIFF."""
    bands, height, width = values.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": values.dtype}
    colours = options.pop("colours", None)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **options) as file:
        file.write(values)
        if colours:
            file.colorinterp = colours
    return path


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 60, 90), dtype=np.uint8)


# ---- reading ----


def test_a_window_has_the_pixels_that_rasterio_reads(tmp_path, noise):
    path = write(tmp_path / "a.tif", noise[:3], tiled=True, blockxsize=16, blockysize=16)
    with Raster(path) as raster:
        assert raster.size == (60, 90)
        assert (raster.bands, raster.scale) == ((1, 2, 3), None)
        assert np.array_equal(raster.read((10, 20, 41, 77)), np.moveaxis(noise[:3, 10:41, 20:77], 0, -1))


def test_bands_are_those_that_are_marked_or_chosen(tmp_path, noise):
    marked = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    path = write(tmp_path / "a.tif", noise, colours=marked, photometric="MINISBLACK")
    whole = (0, 0, 60, 90)
    with Raster(path) as raster:
        assert raster.bands == (3, 2, 1)
        assert np.array_equal(raster.read(whole), np.moveaxis(noise[[2, 1, 0]], 0, -1))
    with Raster(path, bands=[4, 1, 1]) as raster:
        assert np.array_equal(raster.read(whole), np.moveaxis(noise[[3, 0, 0]], 0, -1))
    with Raster(path, bands=[2]) as raster:
        assert np.array_equal(raster.read(whole), np.moveaxis(noise[[1, 1, 1]], 0, -1))
    for wrong in ([0, 1, 2], [5], [1, 2], [], [1, 2, 3, 4], ["1"]):
        with pytest.raises(InvalidRequestError, match="has 4 bands"):
            Raster(path, bands=wrong)


def test_data_that_lies_between_the_samples_is_seen(tmp_path):
    values = np.zeros((1, 6000, 6000), np.uint16)
    values[0, 700:1700, 700:1700] = np.linspace(2000, 2999, 1000, dtype=np.uint16)
    for nodata in (0, None):
        path = write(tmp_path / f"{nodata}.tif", values, nodata=nodata, tiled=True, compress="deflate")
        with Raster(path) as raster:
            seen = raster.read((700, 700, 1700, 1700))
        assert len(np.unique(seen)) > 20, nodata


def test_values_are_scaled_to_8_bits_and_what_is_no_data_is_black(tmp_path):
    values = np.linspace(0, 4000, 100 * 100, dtype=np.uint16).reshape(1, 100, 100)
    values[0, :2] = 65535
    path = write(tmp_path / "a.tif", values, nodata=65535)
    with Raster(path, scale=(1000, 3000)) as raster:
        pixels = raster.read((0, 0, 100, 100))[..., 0]
        expected = ((values[0].astype(float) - 1000) / 2000 * 255).clip(0, 255).round()
        expected[:2] = 0
        assert np.abs(pixels - expected).max() <= 1
    with Raster(path) as raster:
        low, high = np.percentile(values[0, 2:], (2, 98))
        assert raster.scale == pytest.approx((low, high))
    floats = write(tmp_path / "f.tif", np.full((1, 10, 10), np.nan, np.float32))
    with Raster(floats) as raster:
        assert not raster.read((0, 0, 10, 10)).any()
    for wrong in ((3, 1), (1, 1), (0, float("nan")), (float("-inf"), 1)):
        with pytest.raises(InvalidRequestError, match="two rising numbers"):
            Raster(path, scale=wrong)


def test_numbers_of_colours_are_shown_as_their_colours(tmp_path):
    numbers = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    path = write(tmp_path / "a.tif", numbers, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {k: (k, 255 - k, 7, 255) for k in range(256)})
    with Raster(path) as raster:
        pixels = raster.read((0, 0, 8, 8))
    assert np.array_equal(pixels[..., 0], numbers[0])
    assert np.array_equal(pixels[..., 1], 255 - numbers[0])


def test_numbers_of_colours_without_data_are_black_whatever_the_first_colour_is(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[[0, 1], [9, 9]]], np.uint8), photometric="palette", nodata=9)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {k: (200, k, 7, 255) for k in range(256)})
    with Raster(path) as raster:
        pixels = raster.read((0, 0, 2, 2))
    assert pixels.tolist() == [[[200, 0, 7], [200, 1, 7]], [[0, 0, 0], [0, 0, 0]]]


def test_memory_is_that_of_a_window_and_not_of_the_raster(tmp_path):
    path = tmp_path / "large.tif"
    options = {"driver": "GTiff", "count": 3, "height": 40_000, "width": 50_000, "dtype": "uint8", "sparse_ok": True}
    with rasterio.open(path, "w", crs=UTM, transform=TRANSFORM, tiled=True, compress="deflate", **options):
        pass
    assert path.stat().st_size < 10_000_000
    tracemalloc.start()
    with Raster(path) as raster:
        assert raster.read((39_000, 49_000, 40_000, 50_000)).shape == (1000, 1000, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000  # the raster has 6 GB


# ---- what is refused ----

VRT = """<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>EPSG:32633</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>
<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("name", ["map.tif", "map.vrt"])
def test_a_file_that_refers_to_another_is_refused(tmp_path, noise, name):
    secret = write(tmp_path / "secret.tif", noise)
    (tmp_path / name).write_text(VRT.format(secret))
    with rasterio.open(tmp_path / name) as opened:  # what rasterio does by itself
        assert opened.driver == "VRT"
    with pytest.raises(ImageDecodeError, match="cannot be read as GeoTIFF"):
        Raster(tmp_path / name)


def test_only_files_of_this_machine_are_opened(tmp_path, noise):
    write(tmp_path / "a.tif", noise)
    for path in (
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "http://127.0.0.1:9/a.tif",
        f"GTIFF_DIR:1:{tmp_path}/a.tif",
        f"zip://{tmp_path}/a.zip!a.tif",
        tmp_path,
    ):
        with pytest.raises(FileNotFoundError):
            Raster(path)


def test_what_lies_beside_a_file_is_not_read(tmp_path, noise):
    path = write(tmp_path / "a.tif", noise)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>5,1,0,6,0,-1</GeoTransform></PAMDataset>"
    )
    (tmp_path / "a.tfw").write_text("9\n0\n0\n-9\n0\n0\n")
    with Raster(path) as raster:
        assert raster.crs == UTM
        assert raster.transform == TRANSFORM


def test_damaged_and_odd_files_are_refused_with_a_reason(tmp_path, noise):
    good = write(tmp_path / "good.tif", noise).read_bytes()
    pictures = {
        "text.tif": b"no picture",
        "short.tif": good[:300],
        "empty.tif": b"",
    }
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageDecodeError, match=name), Raster(tmp_path / name) as raster:
            raster.read((0, 0, 60, 90))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        plain = write(tmp_path / "plain.tif", noise, crs=None, transform=Affine.identity())
    with pytest.raises(ImageDecodeError, match="has no coordinates"):
        Raster(plain)
    with pytest.raises(ImageDecodeError, match="no colours"):
        Raster(write(tmp_path / "complex.tif", noise.astype(np.complex64)))
    huge = {"driver": "GTiff", "count": 1, "dtype": "uint8", "sparse_ok": True, "crs": UTM, "transform": TRANSFORM}
    with rasterio.open(tmp_path / "huge.tif", "w", height=70_000, width=70_000, tiled=True, compress="lzw", **huge):
        pass
    with pytest.raises(ImageDecodeError, match="more than 4294967295"):
        Raster(tmp_path / "huge.tif")
    blocks = {"height": 30_000, "width": 30_000, "tiled": True, "blockxsize": 2**15, "blockysize": 2**14}
    with rasterio.open(tmp_path / "blocks.tif", "w", compress="lzw", **blocks, **huge):
        pass
    with pytest.raises(ImageDecodeError, match="TILED=YES"):
        Raster(tmp_path / "blocks.tif")


# ---- coordinates ----


def result_of(mask: np.ndarray, *, crs=UTM, transform=TRANSFORM, size=None, offset=(0, 0)) -> GeoSegmentation:
    return GeoSegmentation(
        prompt="field",
        size=size or mask.shape,
        rles=(place(masks.encode(mask), offset, size or mask.shape),),
        scores=np.array([0.75], np.float32),
        threshold=0.5,
        crs=None if crs is None else rasterio.crs.CRS.from_user_input(crs),
        transform=transform,
        bands=(1, 2, 3),
        scale=None,
        tiles=1,
        model=MODEL,
        source="map.tif",
    )


def ring() -> np.ndarray:
    """A square with a hole, and a part that stands apart."""
    mask = np.zeros((40, 50), bool)
    mask[5:25, 8:30] = True
    mask[10:15, 12:20] = False
    mask[30:36, 40:49] = True
    return mask


TRANSFORMS = {
    "north up": TRANSFORM,
    "south up": Affine(0.5, 0, 500_000, 0, 0.5, 5_400_000),
    "rotated": Affine.translation(500_000, 5_400_000) * Affine.rotation(30) * Affine.scale(0.5, -0.7),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_outlines_in_coordinates_of_the_raster_are_those_of_rasterio(transform):
    mask = ring()
    (feature,) = result_of(mask, transform=transform).to_geojson(crs="raster")["features"]
    shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, transform=transform)
    expected = shapely.unary_union([shapely.geometry.shape(shape) for shape, _ in shapes])
    found = shapely.geometry.shape(feature["geometry"])
    assert found.is_valid
    assert shapely.equals_exact(found.normalize(), expected.normalize(), tolerance=1e-6)
    if transform is not TRANSFORMS["rotated"]:
        burnt = rasterio.features.rasterize([feature["geometry"]], mask.shape, transform=transform)
        assert np.array_equal(burnt.astype(bool), mask)
    for polygon in found.geoms:
        assert polygon.exterior.is_ccw  # as RFC 7946 recommends
        assert not any(hole.is_ccw for hole in polygon.interiors)
    assert feature["properties"]["pixels"] == mask.sum()
    assert feature["properties"]["area_m2"] == pytest.approx(found.area)


def test_longitudes_and_latitudes_are_those_of_rasterio():
    result = result_of(ring())
    collection = result.to_geojson()
    (feature,) = collection["features"]
    (in_raster,) = result.to_geojson(crs="raster")["features"]
    assert "crs" not in collection
    back = rasterio.warp.transform_geom("EPSG:4326", UTM, feature["geometry"])
    apart = shapely.hausdorff_distance(*(shapely.geometry.shape(one) for one in (back, in_raster["geometry"])))
    assert apart < 0.001  # metres
    longitude, latitude = feature["geometry"]["coordinates"][0][0][0]
    assert (longitude, latitude) == pytest.approx((15.0, 48.75), abs=0.01)
    for polygon in shapely.geometry.shape(feature["geometry"]).geoms:
        assert polygon.exterior.is_ccw


def test_the_coordinates_of_the_raster_are_named():
    mask = ring()
    named = result_of(mask).to_geojson(crs="raster")["crs"]
    assert named == {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    own = "+proj=tmerc +lat_0=1.5 +lon_0=9.25 +k=0.9 +x_0=7 +ellps=GRS80 +units=m"
    assert "crs_wkt" in result_of(mask, crs=own).to_geojson(crs="raster")
    in_degrees = result_of(mask, crs="EPSG:4326", transform=from_origin(15, 48, 1e-5, 1e-5))
    assert "area_m2" not in in_degrees.to_geojson()["features"][0]["properties"]
    nameless = result_of(mask, crs=None)
    assert "crs" not in nameless.to_geojson(crs="raster")
    with pytest.raises(InvalidRequestError, match="no coordinate reference system"):
        nameless.to_geojson()
    with pytest.raises(InvalidRequestError, match='"wgs84" or "raster"'):
        nameless.to_geojson(crs="EPSG:3857")


def test_masks_of_rasters_of_billions_of_pixels_have_the_right_outlines():
    size = (65_000, 66_000)
    result = result_of(ring(), size=size, offset=(64_950, 65_940))
    (feature,) = result.to_geojson(crs="raster")["features"]
    local = result_of(ring(), transform=TRANSFORM * Affine.translation(65_940, 64_950))
    assert feature["geometry"] == local.to_geojson(crs="raster")["features"][0]["geometry"]


# ---- with the network ----


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[Path, np.ndarray]:
    pixels = s3seg.images.load(circles()).pixels
    path = tmp_path_factory.mktemp("geo") / "map.tif"
    return write(path, np.moveaxis(pixels, -1, 0), tiled=True, blockxsize=128, blockysize=128), pixels


def test_things_are_where_the_raster_says(seg, scene):
    path, pixels = scene
    steps = []
    result = segment_geotiff(seg, path, "red circle", tile=300, on_tiles=lambda *step: steps.append(step))
    assert steps[-1] == (result.tiles, result.tiles) == (9, 9)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 100)
    burnt = rasterio.features.rasterize(
        [one["geometry"] for one in result.to_geojson(crs="raster")["features"]], red.shape, transform=TRANSFORM
    ).astype(bool)
    assert len(result) == 9
    assert (burnt & red).sum() / (burnt | red).sum() > 0.8
    of_picture = seg.segment(pixels, "red circle", tile=300)
    assert result.scores.tolist() == pytest.approx(of_picture.scores.tolist(), abs=1e-4)
    both = segment_geotiff(seg, path, ["blue star", "red circle"], tile=300, max_instances=4)
    assert [len(one) for one in both] == [0, 4]
    assert both[1].rles == result.rles[:4]


def test_what_is_larger_than_a_window_is_found_as_a_whole(seg, tmp_path):
    rows, columns = np.mgrid[:900, :1000]
    disc = np.hypot(rows - 450, columns - 480) < 210
    pixels = np.where(disc, np.array([220, 40, 40], np.uint8)[:, None, None], np.uint8(235))
    path = write(tmp_path / "disc.tif", pixels)
    result = segment_geotiff(seg, path, "red circle")
    assert result.tiles == 16
    assert len(result) == 1
    assert masks.iou(result.rles, [masks.encode(disc)])[0, 0] > 0.9


def test_windows_are_bounded(seg, scene):
    with pytest.raises(InvalidRequestError, match="at most 4096 pixels"):
        segment_geotiff(seg, scene[0], "red circle", tile=4097)


def test_a_raster_that_fits_into_a_window_is_looked_at_whole(seg, scene):
    path, _ = scene
    assert segment_geotiff(seg, path, "red circle", tile=800).tiles == 1


def test_nothing_imports_rasterio_before_it_is_needed(scene):
    code = (
        "import sys; sys.modules['rasterio'] = None; import s3seg, s3seg.cli; from s3seg.integrations import geotiff\n"
        f"try: geotiff.Raster({str(scene[0])!r})\nexcept s3seg.S3segError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "reading GeoTIFF needs rasterio: pip install 's3seg[geo]'\n", done.stderr


def test_collections_have_numbered_features():
    assert [one["id"] for one in geojson([result_of(ring()), result_of(ring())])["features"]] == [1, 2]


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ('LOCAL_CS["site",UNIT["metre",1]]', TRANSFORM),  # coordinates of a building site
        ("EPSG:32633", from_origin(1e12, 1e12, 0.5, 0.5)),
    ],
)
def test_coordinates_that_have_no_longitude_are_refused_before_and_after_the_search(tmp_path, noise, crs, transform):
    path = write(tmp_path / "a.tif", noise[:3], crs=crs, transform=transform)
    with Raster(path) as raster:
        with pytest.raises(
            InvalidRequestError, match=r'cannot be turned into longitude and latitude .* use crs="raster"'
        ):
            check_coordinates(raster, "wgs84")
        check_coordinates(raster, "raster")
        mask = np.zeros(raster.size, bool)
        mask[:4, :4] = True
        found = made(raster, mask)
    with pytest.raises(InvalidRequestError, match=r'cannot be turned into longitude and latitude .* use crs="raster"'):
        found.to_geojson()
    assert len(found.to_geojson(crs="raster")["features"]) == 1


def test_a_picture_of_the_whole_earth_is_not_refused_for_its_corners(tmp_path, noise):
    seen_from_space = "+proj=geos +h=35785831 +lon_0=0 +sweep=y"
    path = write(tmp_path / "a.tif", noise[:3], crs=seen_from_space, transform=from_origin(-6e6, 6e6, 133_333, 2e5))
    with Raster(path) as raster:
        check_coordinates(raster, "wgs84")
        middle = np.zeros(raster.size, bool)
        middle[28:32, 43:47] = True
        (feature,) = made(raster, middle).to_geojson()["features"]
        corner = np.zeros(raster.size, bool)
        corner[:2, :2] = True
        with pytest.raises(InvalidRequestError, match="cannot be turned"):
            made(raster, corner).to_geojson()
    assert shapely.geometry.shape(feature["geometry"]).distance(shapely.Point(0, 0)) < 3


def made(raster: Raster, mask: np.ndarray) -> GeoSegmentation:
    return GeoSegmentation(
        prompt="x",
        size=raster.size,
        rles=(masks.encode(mask),),
        scores=np.array([0.9], np.float32),
        threshold=0.5,
        crs=raster.crs,
        transform=raster.transform,
        bands=raster.bands,
        scale=raster.scale,
        tiles=1,
        model=MODEL,
        source=str(raster.path),
    )


def test_a_place_that_is_not_a_number_is_damage(tmp_path, noise):
    for wrong in (float("nan"), float("inf")):
        path = write(tmp_path / "a.tif", noise[:3], transform=Affine(0.5, 0, wrong, 0, -0.5, 1))
        with pytest.raises(ImageDecodeError, match="its coordinates are not numbers"):
            Raster(path)

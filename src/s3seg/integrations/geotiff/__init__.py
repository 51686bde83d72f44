"""Segment GeoTIFF rasters of any size, window by window. Needs ``pip install 's3seg[geo]'``.

from s3seg.integrations.geotiff import segment_geotiff

trees = segment_geotiff(s3seg.Segmenter(), "map.tif", "tree", tile=1024)
trees.save_geojson("trees.geojson")  # longitude and latitude; crs="raster" for the coordinates of the raster
"""

from s3seg.integrations.geotiff.raster import Raster
from s3seg.integrations.geotiff.result import GeoSegmentation, check_coordinates, geojson
from s3seg.integrations.geotiff.segmenting import segment_geotiff

__all__ = ["GeoSegmentation", "Raster", "check_coordinates", "geojson", "segment_geotiff"]

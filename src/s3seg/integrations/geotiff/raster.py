"""`Raster`: a GeoTIFF file, read window by window as RGB of 8 bits."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.results.windows import Window

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

MAX_PIXELS = 2**32 - 1
"""Rasters with more pixels are refused: the run lengths of masks are numbers of 32 bits."""

_NEEDS_RASTERIO = "reading GeoTIFF needs rasterio: pip install 's3seg[geo]'"
_MAX_BLOCK_BYTES = 2**28
_SAMPLES = 16  # windows that an estimate of the scale looks at
_SAMPLE_SIDE = 512
_COARSE_SIDE = 1024

_GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # what the file says, and nothing that lies beside it
    "GDAL_PAM_ENABLED": "NO",  # no .aux.xml, which can name other files
    "GDAL_CACHEMAX": 256 << 20,
}


class Raster:
    """A georeferenced GeoTIFF file. Use it as a context manager, on one thread.

    Only the file itself is read, not what lies beside it or what it may refer to.

    Attributes:
        path: The file.
        size: (height, width) in pixels.
        bands: The numbers of the bands that are read as red, green and blue, from 1.
        scale: The values that become 0 and 255; None if values are used as they are.
        crs: The coordinate reference system, or None if the file names none.
        transform: From (column, row) of pixel corners to coordinates.
    """

    size: tuple[int, int]
    bands: tuple[int, int, int]
    scale: tuple[float, float] | None
    crs: CRS | None
    transform: Affine

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        bands: Sequence[int] | None = None,
        scale: tuple[float, float] | None = None,
    ) -> None:
        """Open a file.

        Args:
            path: A GeoTIFF file on this machine; no URL, and none of GDAL's virtual paths.
            bands: One band, read as grey, or three, read as red, green and blue; counted from 1. By default those that
                the file marks as red, green and blue, else the first three, else the first.
            scale: The values that become 0 and 255. By default values of 8 bits are used as they are; for others, the
                2nd and the 98th percentile of the values of all chosen bands in a sample of windows.

        Raises:
            InvalidRequestError: rasterio is not installed; a band does not exist; or the scale is not two rising
                numbers.
            ImageDecodeError: The file is no GeoTIFF, is damaged, too large, or not georeferenced.
            FileNotFoundError: There is no such file.
        """
        try:
            import rasterio
            from rasterio.errors import NotGeoreferencedWarning
        except ImportError as err:
            raise InvalidRequestError(_NEEDS_RASTERIO) from err
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: there is no such file")
        self._open = contextlib.ExitStack()
        try:
            self._open.enter_context(rasterio.Env(**_GDAL_OPTIONS))
            with self._reporting(), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                # an absolute path is never taken for a scheme, and no other driver, such as VRT, is tried
                source = rasterio.open(self.path.absolute(), driver="GTiff")
                self._source: Any = self._open.enter_context(source)
                self.transform = self._source.transform
            self._check()
            self.size = self._source.height, self._source.width
            self.crs = self._source.crs
            self._palette = self._read_palette()
            self.bands = self._choose_bands(bands)
            self.scale = self._choose_scale(scale)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, window: Window) -> np.ndarray:
        """Read a window: (height, width, 3) uint8 RGB. Pixels without data are black.

        Raises:
            ImageDecodeError: The file is damaged.
        """
        values = self._read_values(window)
        if self._palette is not None:
            pixels = self._palette[values.filled(0)[0]]
            pixels[np.ma.getmaskarray(values)[0]] = 0
            return pixels
        if self.scale is not None:
            low, high = self.scale
            scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
            values = np.ma.clip(np.ma.fix_invalid(scaled), 0, 255).round()
        return np.moveaxis(values.filled(0).astype(np.uint8), 0, -1)

    def _read_values(self, window: Window) -> np.ma.MaskedArray[Any, Any]:
        """Read a window as it is in the file: (3, height, width), or (1, height, width) with a palette."""
        from rasterio.windows import Window as RasterWindow

        top, left, bottom, right = window
        bands = [1] if self._palette is not None else list(self.bands)
        with self._reporting():
            return self._source.read(bands, window=RasterWindow.from_slices((top, bottom), (left, right)), masked=True)

    def _read_coarsely(self) -> np.ma.MaskedArray[Any, Any]:
        """Read the whole raster at a lower resolution, of at most `_COARSE_SIDE` pixels a side."""
        height, width = self.size
        step = max(1.0, max(height, width) / _COARSE_SIDE)
        shape = (3, max(1, round(height / step)), max(1, round(width / step)))
        with self._reporting():
            return self._source.read(list(self.bands), out_shape=shape, masked=True)

    def _check(self) -> None:
        source = self._source
        if source.height * source.width > MAX_PIXELS:
            raise ImageDecodeError(
                f"{self.path}: has {source.width} x {source.height} pixels, more than {MAX_PIXELS}; cut it into parts"
            )
        if any(np.dtype(kind).kind not in "uif" for kind in source.dtypes):
            raise ImageDecodeError(
                f"{self.path}: has values of type {source.dtypes[0]}, which are no colours; convert it first: "
                "gdal_translate -ot Float32"
            )
        together = source.count if source.interleaving is not None and source.interleaving.name == "pixel" else 1
        each = max(np.dtype(kind).itemsize for kind in source.dtypes)
        if any(height * width * each * together > _MAX_BLOCK_BYTES for height, width in source.block_shapes):
            raise ImageDecodeError(
                f"{self.path}: is stored in blocks of {source.block_shapes[0]} pixels, too large to be read in "
                "windows; convert it first: gdal_translate -co TILED=YES"
            )
        if not np.isfinite(source.transform).all():
            raise ImageDecodeError(f"{self.path}: is damaged: its coordinates are not numbers")
        if source.transform.is_degenerate or source.transform == source.transform.identity():
            raise ImageDecodeError(
                f"{self.path}: has no coordinates (an affine transform); for pictures use `s3seg segment`"
            )

    def _read_palette(self) -> np.ndarray | None:
        """Return the colours of a file that stores numbers of colours, (256 or 65536, 3) uint8."""
        from rasterio.enums import ColorInterp

        source = self._source
        has_palette = source.count == 1 and source.colorinterp[0] == ColorInterp.palette
        if not has_palette or source.dtypes[0] not in ("uint8", "uint16"):
            return None
        colours = np.zeros((np.iinfo(source.dtypes[0]).max + 1, 3), np.uint8)
        for number, colour in source.colormap(1).items():
            colours[number] = colour[:3]
        return colours

    def _choose_bands(self, bands: Sequence[int] | None) -> tuple[int, int, int]:
        from rasterio.enums import ColorInterp

        count = self._source.count
        if bands is None:
            marked = dict(zip(reversed(self._source.colorinterp), range(count, 0, -1), strict=True))
            colours = [marked.get(colour) for colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)]
            if None not in colours:
                bands = [band for band in colours if band is not None]
            else:
                bands = [1, 2, 3] if count >= 3 else [1]
        if len(bands) not in (1, 3) or not all(isinstance(band, int) and 1 <= band <= count for band in bands):
            raise InvalidRequestError(
                f"{self.path}: has {count} bands; choose one or three of 1 to {count}, got {list(bands)!r:.60}"
            )
        red, green, blue = [*bands] * (3 if len(bands) == 1 else 1)
        return red, green, blue

    def _choose_scale(self, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None:
            low, high = (float(value) for value in scale)
            if not (np.isfinite([low, high]).all() and low < high):
                raise InvalidRequestError(f"scale is two rising numbers, the values that become 0 and 255, got {scale}")
            return low, high
        if self._palette is not None or all(self._source.dtypes[band - 1] == "uint8" for band in self.bands):
            return None
        with np.errstate(invalid="ignore", over="ignore"):  # of a damaged file
            samples = [self._read_values(window).astype(np.float64) for window in self._sample()]
            values = np.concatenate([np.ma.fix_invalid(sample).compressed() for sample in samples])
            if not len(values) or values.min() == values.max():  # perhaps all of them lie beside the data
                values = np.ma.fix_invalid(self._read_coarsely().astype(np.float64)).compressed()
        if not len(values):
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(values, (2, 98)))
        if low == high:
            low, high = float(values.min()), float(values.max())
        return (low, high) if low < high else (low, low + 1)

    def _sample(self) -> Iterator[Window]:
        """Yield windows that are spread evenly over the raster."""
        height, width = self.size
        per_axis = round(_SAMPLES**0.5)
        side = min(height, _SAMPLE_SIDE), min(width, _SAMPLE_SIDE)
        tops, lefts = (
            dict.fromkeys(np.linspace(0, length - one, per_axis).astype(int).tolist())
            for length, one in zip(self.size, side, strict=True)
        )
        for top in tops:
            for left in lefts:
                yield top, left, top + side[0], left + side[1]

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what rasterio raises about the file into an error of this package."""
        from rasterio.errors import RasterioError

        try:
            yield
        except (RasterioError, ValueError) as err:
            raise ImageDecodeError(f"{self.path}: cannot be read as GeoTIFF: {err}") from err

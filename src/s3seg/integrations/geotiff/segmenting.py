"""Look for prompts in the windows of a raster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.inference.prompts import checked_positive, checked_prompts
from s3seg.inference.search import Threshold, thresholds_for
from s3seg.inference.tile_plan import plan_tiles
from s3seg.inference.tiling import Progress, detect_in_tiles
from s3seg.integrations.geotiff.raster import Raster
from s3seg.integrations.geotiff.result import GeoSegmentation
from s3seg.tasks.tiles import Tile, checked_tile

if TYPE_CHECKING:
    from s3seg.inference.segmenter import Segmenter
    from s3seg.results.segmentation import Segmentation

MAX_SIDE = 4096
"""The largest side of a window. A raster with no more pixels than such a window is looked at as a whole too."""


@overload
def segment_geotiff(  # pyright: ignore[reportOverlappingOverload] (a str is a sequence of str)
    segmenter: Segmenter,
    path: str | os.PathLike[str],
    prompt: str,
    *,
    tile: Tile = "auto",
    threshold: Threshold = None,
    max_instances: int | None = None,
    bands: Sequence[int] | None = None,
    scale: tuple[float, float] | None = None,
    on_tiles: Progress = lambda done, total: None,
) -> GeoSegmentation: ...
@overload
def segment_geotiff(
    segmenter: Segmenter,
    path: str | os.PathLike[str],
    prompt: Sequence[str],
    *,
    tile: Tile = "auto",
    threshold: Threshold = None,
    max_instances: int | None = None,
    bands: Sequence[int] | None = None,
    scale: tuple[float, float] | None = None,
    on_tiles: Progress = lambda done, total: None,
) -> list[GeoSegmentation]: ...
def segment_geotiff(
    segmenter: Segmenter,
    path: str | os.PathLike[str],
    prompt: str | Sequence[str],
    *,
    tile: Tile = "auto",
    threshold: Threshold = None,
    max_instances: int | None = None,
    bands: Sequence[int] | None = None,
    scale: tuple[float, float] | None = None,
    on_tiles: Progress = lambda done, total: None,
) -> GeoSegmentation | list[GeoSegmentation]:
    """Segment every instance of what the prompts describe in a GeoTIFF raster.

    The raster is read in overlapping windows, a batch at a time, so it may be much larger than memory. What several
    windows show of one thing is joined. Rasters of up to `MAX_SIDE` x `MAX_SIDE` pixels are looked at as a whole too;
    for larger ones, choose windows that are larger than the things.

    Args:
        segmenter: The loaded checkpoint.
        path: A GeoTIFF file on this machine.
        prompt: What to look for: one prompt or several.
        tile: The side of a window in pixels, at most `MAX_SIDE`, or "auto" for the side of the network's input.
        threshold: Keep instances that score above this; see `Segmenter.segment`.
        max_instances: Keep at most this many for each prompt, the best; None keeps all.
        bands: The bands to read; see `Raster`.
        scale: The values that become 0 and 255; see `Raster`.
        on_tiles: Called after each batch with the number of windows that are done, and of all.

    Returns:
        One result for one prompt; for a sequence of prompts a list, in the same order.

    Raises:
        InvalidRequestError: rasterio is not installed; or an argument is out of range.
        ImageDecodeError: The file is no GeoTIFF, is damaged, too large, or not georeferenced.
        FileNotFoundError: There is no such file.
        PromptError: A prompt is empty, not text, or too long for the model.
        InferenceError: The network failed, for example because memory ran out.
    """
    prompts = checked_prompts(prompt, has_boxes=False)
    segmenter.network.check_prompts(prompts)
    side = checked_tile(tile) or "auto"
    if isinstance(side, int) and side > MAX_SIDE:
        raise InvalidRequestError(f"a window of a raster has at most {MAX_SIDE} pixels a side, got tile={side}")
    count = None if max_instances is None else checked_positive("max_instances", max_instances)
    thresholds = thresholds_for(
        threshold, prompts, default=segmenter.metadata.threshold, calibration=segmenter.calibration, tile=side
    )
    distinct = list(thresholds)
    with Raster(path, bands=bands, scale=scale) as raster:
        full = (0, 0, *raster.size)
        tiles = plan_tiles(raster.size, side, input_side=segmenter.image_size) or [full]
        pieces = detect_in_tiles(
            segmenter.network,
            raster.read,
            tiles,
            distinct,
            size=raster.size,
            threshold=min(thresholds.values()),
            batch_size=segmenter.batch_size,
            on_tiles=on_tiles,
        )
        whole: Sequence[Segmentation | None] = [None] * len(distinct)
        if len(tiles) > 1 and raster.size[0] * raster.size[1] <= MAX_SIDE**2:
            whole = segmenter.segment(raster.read(full), distinct, threshold=min(thresholds.values()))
        results = {}
        for k, one in enumerate(distinct):
            found = pieces.joined(k, whole[k], above=thresholds[one])[:count]
            results[one] = GeoSegmentation(
                prompt=one,
                size=raster.size,
                rles=tuple(piece.rle for piece in found),
                scores=np.array([piece.score for piece in found], np.float32),
                threshold=thresholds[one],
                crs=raster.crs,
                transform=raster.transform,
                bands=raster.bands,
                scale=raster.scale,
                tiles=len(tiles),
                model=segmenter.model,
                source=os.fspath(path),
            )
    asked = [results[one] for one in prompts]
    return asked[0] if isinstance(prompt, str) else asked

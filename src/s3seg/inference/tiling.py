"""Segment a large picture in overlapping tiles, for what is too small or too numerous for one pass."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from s3seg.inference.prefetch import batches
from s3seg.inference.prompts import make_queries
from s3seg.inference.stages import Sam3Network
from s3seg.inference.stitching import Piece, is_cut, stitch
from s3seg.results import masks
from s3seg.results.segmentation import Segmentation
from s3seg.results.windows import Window, place

if TYPE_CHECKING:
    from s3seg.sam3.predictor import Detections


def segment_tiles(
    network: Sam3Network,
    pixels: np.ndarray,
    tiles: Sequence[Window],
    whole: Sequence[Segmentation],
    *,
    batch_size: int,
) -> list[Segmentation]:
    """Look for prompts in the tiles of a picture, and join what is found with what the whole picture shows.

    A batch of tiles is in memory at a time, and of each instance its run lengths.

    Args:
        network: The network.
        pixels: (H, W, 3) uint8 RGB.
        tiles: As `s3seg.inference.tile_plan.plan_tiles` returns them; at least one.
        whole: The results of the prompts on the whole picture, all instances above the thresholds.
        batch_size: How many tiles to encode together.

    Returns:
        A result for each of ``whole``, with the instances of both, the best first. Presence is the highest of all.
    """
    size = whole[0].size
    found: list[list[Piece]] = [[] for _ in whole]
    presence = [result.presence for result in whole]
    times = {"image": 0.0, "prompt": 0.0, "masks": 0.0}
    for k, number, window, detections in _detections(network, pixels, tiles, whole, batch_size, times):
        top, left, bottom, right = window
        start = time.perf_counter()
        for rle, box, score in zip(
            detections.rles((bottom - top, right - left)), detections.boxes_xyxy, detections.scores, strict=True
        ):
            if masks.area(rle):
                placed = place(rle, (top, left), size)
                sides = box * np.array([right - left, bottom - top] * 2) + [left, top, left, top]
                found[k].append(Piece(placed, sides, float(score), number, is_cut(placed, window, size)))
        presence[k] = max(presence[k], detections.presence)
        times["masks"] += _milliseconds_since(start)
    return [_result(result, found[k], tiles, presence[k], times, prompts=len(whole)) for k, result in enumerate(whole)]


def _detections(
    network: Sam3Network,
    pixels: np.ndarray,
    tiles: Sequence[Window],
    whole: Sequence[Segmentation],
    batch_size: int,
    times: dict[str, float],
) -> Iterator[tuple[int, int, Window, Detections]]:
    """Yield the number of a prompt, the number of a tile, the tile, and what was detected of the prompt in it."""
    lowest = min(result.threshold for result in whole)
    for batch in batches(enumerate(tiles), batch_size):
        start = time.perf_counter()
        resized = [
            network.resize(np.ascontiguousarray(pixels[y1:y2, x1:x2]), (y2 - y1, x2 - x1))
            for _, (y1, x1, y2, x2) in batch
        ]
        encoded = network.encode(resized)
        times["image"] += _milliseconds_since(start)
        start = time.perf_counter()
        queries = make_queries([result.prompt for result in whole], (), (), size=whole[0].size)
        pairs = [(image, query) for image in encoded for query in queries]
        detections = iter(network.predict_queries(pairs, threshold=lowest))
        times["prompt"] += _milliseconds_since(start)
        for number, window in batch:
            for k in range(len(whole)):
                yield k, number, window, next(detections)


def _result(
    whole: Segmentation,
    found: Sequence[Piece],
    tiles: Sequence[Window],
    presence: float,
    times: dict[str, float],
    *,
    prompts: int,
) -> Segmentation:
    """Join the pieces of one prompt. Pieces at or below its threshold, which may be above the lowest, are left out."""
    start = time.perf_counter()
    threshold = np.float32(whole.threshold)
    above = [piece for piece in found if np.float32(piece.score) > threshold]
    of_whole = [Piece(one.rle, np.array(one.box), one.score) for one in whole if one.area]
    pieces = stitch(above, tiles, of_whole)
    timings = dict(whole.timings)
    timings["image"] = timings.get("image", 0.0) + times["image"]
    timings["prompt"] = timings.get("prompt", 0.0) + times["prompt"] / prompts
    timings["masks"] = timings.get("masks", 0.0) + times["masks"] / prompts + _milliseconds_since(start)
    return replace(
        whole,
        rles=tuple(piece.rle for piece in pieces),
        boxes=np.array([piece.box for piece in pieces], np.float32).reshape(-1, 4),
        scores=np.array([piece.score for piece in pieces], np.float32),
        presence=presence,
        timings=timings,
    )


def _milliseconds_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000

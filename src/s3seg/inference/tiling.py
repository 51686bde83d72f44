"""Segment a large picture in overlapping tiles, for what is too small or too numerous for one pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from s3seg.inference.clock import milliseconds_since
from s3seg.inference.prefetch import batches
from s3seg.inference.prompts import make_queries
from s3seg.inference.stages import Sam3Network
from s3seg.inference.stitching import Piece, is_cut, stitch, stitch_for_any_threshold
from s3seg.results import masks
from s3seg.results.segmentation import Segmentation
from s3seg.results.windows import Window, place

if TYPE_CHECKING:
    from s3seg.sam3.predictor import Detections

ReadWindow = Callable[[Window], np.ndarray]
"""Returns the pixels of a window, (height, width, 3) uint8 RGB."""

Progress = Callable[[int, int], None]
"""Takes the number of tiles that are done, and of all."""


class TilePieces:
    """Collects what a network detects of prompts in the tiles of a picture. Of each instance it keeps the run lengths.

    Attributes:
        presence: The highest presence of each prompt in any tile.
        milliseconds: Time by stage, of all tiles together: "image", "prompt", "masks". Callers add to the first two.
        left_out: Whether there were more instances of a prompt than ``max_instances``.
    """

    def __init__(
        self, tiles: Sequence[Window], size: tuple[int, int], *, prompts: int, max_instances: int | None = None
    ) -> None:
        """Begin without any.

        Args:
            tiles: As `s3seg.inference.tile_plan.plan_tiles` returns them; at least one.
            size: (height, width) of the picture.
            prompts: How many there are.
            max_instances: Keep about as many of each prompt, the best; None keeps all.
        """
        self.presence = [0.0] * prompts
        self.milliseconds = {"image": 0.0, "prompt": 0.0, "masks": 0.0}
        self.left_out = False
        self._tiles = tiles
        self._size = size
        self._pieces: list[list[Piece]] = [[] for _ in range(prompts)]
        self._max_instances = max_instances

    def add(self, number: int, prompt: int, detections: Detections) -> None:
        """Add what was detected of a prompt in a tile. CPU work; waits for the logits.

        Args:
            number: The number of the tile.
            prompt: The number of the prompt.
            detections: With scores above a threshold.
        """
        start = time.perf_counter()
        window = top, left, bottom, right = self._tiles[number]
        pieces = self._pieces[prompt]
        for rle, box, score in zip(
            detections.rles((bottom - top, right - left)), detections.boxes_xyxy, detections.scores, strict=True
        ):
            if masks.area(rle):
                placed = place(rle, (top, left), self._size)
                sides = box * np.array([right - left, bottom - top] * 2) + [left, top, left, top]
                pieces.append(Piece(placed, sides, float(score), number, is_cut(placed, window, self._size)))
        if self._max_instances is not None and len(pieces) > 2 * self._max_instances:
            self._pieces[prompt] = self._best(pieces)
        self.presence[prompt] = max(self.presence[prompt], detections.presence)
        self.milliseconds["masks"] += milliseconds_since(start)

    def results(self, whole: Sequence[Segmentation], *, threshold: float | None = None) -> list[Segmentation]:
        """Join the pieces of each prompt with what the whole picture shows.

        Args:
            whole: The results of the prompts on the whole picture, with all instances above the thresholds.
            threshold: The one that most readers of the results will choose, if a threshold will be chosen later; see
                `stitch_for_any_threshold`.

        Returns:
            A result for each of ``whole``, with the instances of both, the best first. Presence is the highest of all.
        """
        return [self._result(k, result, threshold) for k, result in enumerate(whole)]

    def joined(
        self, prompt: int, whole: Segmentation | None, *, above: float, threshold: float | None = None
    ) -> list[Piece]:
        """Join the pieces of a prompt with what the whole picture shows: one piece for each thing, the best first.

        Args:
            prompt: The number of the prompt.
            whole: Its result on the whole picture; None if that was not looked at.
            above: Take only what scores above this.
            threshold: As for `results`.
        """
        of_tiles = self._best(_above(above, self._pieces[prompt]))
        found = () if whole is None else [Piece(one.rle, np.array(one.box), one.score) for one in whole if one.area]
        of_whole = _above(above, found)
        if threshold is None:
            return self._best(stitch(of_tiles, self._tiles, of_whole))
        return self._best(stitch_for_any_threshold(of_tiles, self._tiles, of_whole, threshold=threshold))

    def _best(self, pieces: Sequence[Piece]) -> list[Piece]:
        self.left_out |= self._max_instances is not None and len(pieces) > self._max_instances
        return sorted(pieces, key=lambda piece: -piece.score)[: self._max_instances]

    def _result(self, k: int, whole: Segmentation, threshold: float | None) -> Segmentation:
        start = time.perf_counter()
        pieces = self.joined(k, whole, above=whole.threshold, threshold=threshold)
        share = 1 / len(self._pieces)
        timings = dict(whole.timings)
        timings["image"] = timings.get("image", 0.0) + self.milliseconds["image"]
        timings["prompt"] = timings.get("prompt", 0.0) + self.milliseconds["prompt"] * share
        timings["masks"] = timings.get("masks", 0.0) + self.milliseconds["masks"] * share + milliseconds_since(start)
        return replace(
            whole,
            rles=tuple(piece.rle for piece in pieces),
            boxes=np.array([piece.box for piece in pieces], np.float32).reshape(-1, 4),
            scores=np.array([piece.score for piece in pieces], np.float32),
            presence=max(whole.presence, self.presence[k]),
            timings=timings,
        )


def detect_in_tiles(
    network: Sam3Network,
    read: ReadWindow,
    tiles: Sequence[Window],
    prompts: Sequence[str],
    *,
    size: tuple[int, int],
    threshold: float,
    batch_size: int,
    on_tiles: Progress = lambda done, total: None,
) -> TilePieces:
    """Look for prompts in the tiles of a picture. A batch of tiles is in memory at a time.

    Args:
        network: The network.
        read: Returns the pixels of a tile.
        tiles: As `s3seg.inference.tile_plan.plan_tiles` returns them; at least one.
        prompts: What to look for.
        size: (height, width) of the picture.
        threshold: Keep instances that score above this.
        batch_size: How many tiles to encode together.
        on_tiles: Called after each batch.
    """
    pieces = TilePieces(tiles, size, prompts=len(prompts))
    queries = make_queries(prompts, (), (), size=size)
    done = 0
    for batch in batches(enumerate(tiles), batch_size):
        start = time.perf_counter()
        resized = [
            network.resize(np.ascontiguousarray(read(window)), (window[2] - window[0], window[3] - window[1]))
            for _, window in batch
        ]
        encoded = network.encode(resized)
        pieces.milliseconds["image"] += milliseconds_since(start)
        start = time.perf_counter()
        pairs = [(image, query) for image in encoded for query in queries]
        detections = iter(network.predict_queries(pairs, threshold=threshold))
        pieces.milliseconds["prompt"] += milliseconds_since(start)
        for number, _ in batch:
            for k in range(len(prompts)):
                pieces.add(number, k, next(detections))
        done += len(batch)
        on_tiles(done, len(tiles))
    return pieces


def _above(threshold: float, pieces: Iterable[Piece]) -> list[Piece]:
    """Return the pieces above the threshold of their prompt; that of the detections may be lower."""
    return [piece for piece in pieces if np.float32(piece.score) > np.float32(threshold)]

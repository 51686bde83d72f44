"""Turn what was found in overlapping tiles, and in the whole picture, into instances.

Pieces of one thing in neighbouring tiles are known by their masks: in the window that two tiles share, both show the
same pixels of it. Boxes would join neighbours that are close. What does not fit into a tile is taken from the whole
picture, which shows it in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from s3seg.results import masks
from s3seg.results.masks import RLE
from s3seg.results.windows import Window, common, crop

_SAME = 0.5  # IoU above which two masks, or their parts in a shared window, are of the same thing
_INSIDE = 0.5  # share of a mask inside another above which a cut piece is a part of it
_NEAR_EDGE = 2  # pixels: a mask that comes this near to the edge of its tile is cut by it


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What a tile, or the whole picture, shows of an instance.

    Attributes:
        rle: Its mask, of the picture's size.
        box: xyxy in pixels of the picture, as predicted.
        score: 0..1.
        tile: Number of the tile; -1 for the whole picture.
        is_cut: Whether it reaches an edge of its tile that is not an edge of the picture.
        extent: The tight box around the mask.
    """

    rle: RLE
    box: np.ndarray
    score: float
    tile: int = -1
    is_cut: bool = False
    extent: masks.Box = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extent", masks.box(self.rle))


def is_cut(rle: RLE, window: Window, size: tuple[int, int]) -> bool:
    """Return whether a mask of the picture reaches an inner edge of the tile that it was found in."""
    x1, y1, x2, y2 = masks.box(rle)
    top, left, bottom, right = window
    return bool(
        (y1 < top + _NEAR_EDGE and top > 0)
        or (x1 < left + _NEAR_EDGE and left > 0)
        or (y2 > bottom - _NEAR_EDGE and bottom < size[0])
        or (x2 > right - _NEAR_EDGE and right < size[1])
    )


def stitch(pieces: Sequence[Piece], tiles: Sequence[Window], whole: Sequence[Piece]) -> list[Piece]:
    """Return one piece for each thing.

    Args:
        pieces: What the tiles show, with ``tile`` and ``is_cut``.
        tiles: The tiles, by number.
        whole: What the whole picture shows.
    """
    groups = _joined(pieces, tiles)
    return _with_whole([_merged(group) for group in groups], whole, tiles)


def stitch_for_any_threshold(
    pieces: Sequence[Piece], tiles: Sequence[Window], whole: Sequence[Piece], *, threshold: float
) -> list[Piece]:
    """Return one piece for each thing, so that whoever reads them may choose a threshold later.

    What scores above ``threshold`` is joined alone: those who keep it get the same as if the rest had not been
    predicted. Of the rest, what the former do not show already is added.

    Args:
        pieces: As for `stitch`.
        tiles: As for `stitch`.
        whole: As for `stitch`.
        threshold: The one that most readers will choose.
    """
    limit = np.float32(threshold)
    strong, of_whole = ([one for one in group if np.float32(one.score) > limit] for group in (pieces, whole))
    kept = stitch(strong, tiles, of_whole)
    weak = [one for one in stitch(pieces, tiles, whole) if np.float32(one.score) <= limit]
    extents = _extents(kept)
    shown = ([kept[k].rle for k in np.flatnonzero(_meet(extents, one.extent)).tolist()] for one in weak)
    return kept + [
        one
        for one, rles in zip(weak, shown, strict=True)
        if not rles or _shares([one.rle], rles).of_first[0].sum() < _INSIDE
    ]


def _joined(pieces: Sequence[Piece], tiles: Sequence[Window]) -> list[list[Piece]]:
    """Group the pieces of each thing: of two tiles, a piece is joined with at most one of the other."""
    by_tile: dict[int, list[int]] = {}
    for k, piece in enumerate(pieces):
        by_tile.setdefault(piece.tile, []).append(k)
    parent = list(range(len(pieces)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for one, other in _neighbours(sorted(by_tile), tiles):
        window = common(tiles[one], tiles[other])
        if window is None:
            continue
        first, second = (_in_window(by_tile[tile], pieces, window) for tile in (one, other))
        iou = masks.iou([part for _, part in first], [part for _, part in second])
        while iou.size and iou.max() > _SAME:
            i, j = np.unravel_index(int(iou.argmax()), iou.shape)
            parent[root(first[i][0])] = root(second[j][0])
            iou[i], iou[:, j] = 0, 0
    groups: dict[int, list[Piece]] = {}
    for k, piece in enumerate(pieces):
        groups.setdefault(root(k), []).append(piece)
    return list(groups.values())


def _neighbours(numbers: Sequence[int], tiles: Sequence[Window]) -> Iterator[tuple[int, int]]:
    y1, x1, y2, x2 = np.array([tiles[number] for number in numbers]).reshape(-1, 4).T
    for i, one in enumerate(numbers):
        near = (y1 < y2[i]) & (y1[i] < y2) & (x1 < x2[i]) & (x1[i] < x2)
        for j in np.flatnonzero(near[i + 1 :]).tolist():
            yield one, numbers[i + 1 + j]


def _in_window(numbers: Sequence[int], pieces: Sequence[Piece], window: Window) -> list[tuple[int, RLE]]:
    """Return the pieces that have pixels in a window, and these parts of their masks."""
    parts = [(k, crop(pieces[k].rle, window)) for k in numbers if _meets(pieces[k].extent, window)]
    return [(k, part) for k, part in parts if masks.area(part)]


def _meets(box: masks.Box, window: Window) -> bool:
    return box[0] < window[3] and box[2] > window[1] and box[1] < window[2] and box[3] > window[0]


def _merged(group: Sequence[Piece]) -> Piece:
    """Join the pieces of a thing. If a tile shows it whole, that piece alone is the best view of it.

    The score is that of the piece that shows most of it, as if a single picture had shown that.
    """
    complete = [piece for piece in group if not piece.is_cut]
    best = max(complete or group, key=lambda piece: (masks.area(piece.rle), piece.score))
    if complete or len(group) == 1:
        return best
    boxes = np.stack([piece.box for piece in group])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return Piece(masks.union([piece.rle for piece in group]), box, best.score, best.tile, is_cut=True)


def _with_whole(found: list[Piece], whole: Sequence[Piece], tiles: Sequence[Window]) -> list[Piece]:
    """Add what only the whole picture shows, and replace what it shows better."""
    top, left, bottom, right = tiles[0]
    fits = 0.5 * min(bottom - top, right - left)  # what is larger may have been cut by every tile that shows it
    kept = _without_repeats(found)
    for piece in sorted(whole, key=lambda piece: -masks.area(piece.rle)):
        x1, y1, x2, y2 = piece.extent
        near = np.flatnonzero(_meet(_extents(kept), piece.extent)).tolist()
        shares = _shares([piece.rle], [kept[k].rle for k in near])
        inside = [k for k, share in zip(near, shares.of_second[0], strict=True) if share > _INSIDE]
        same = [k for k, iou in zip(near, shares.iou[0], strict=True) if iou > _SAME]
        if max(x2 - x1, y2 - y1) <= fits:
            if not same and sum(shares.of_first[0]) < _INSIDE:
                kept.append(piece)
            continue
        if any(not kept[k].is_cut for k in same):
            continue  # a tile shows it whole, and sharper
        separate = [k for k in inside if not kept[k].is_cut and k not in same]
        share = dict(zip(near, shares.of_first[0], strict=True))
        if len(separate) > 1 and sum(share[k] for k in separate) > _INSIDE:
            continue  # many small things that look like one from afar
        kept = [one for k, one in enumerate(kept) if k not in inside and k not in same]
        kept.append(piece)
    return kept


def _without_repeats(found: list[Piece]) -> list[Piece]:
    """Leave out pieces that repeat a better one: the same mask, or a cut piece inside a larger mask."""
    order = sorted(found, key=lambda piece: (piece.is_cut, -piece.score))
    extents, is_kept = _extents(order), np.zeros(len(order), bool)
    for k, piece in enumerate(order):
        near = [order[other].rle for other in np.flatnonzero(_meet(extents, piece.extent) & is_kept)]
        shares = _shares([piece.rle], near)
        repeats = shares.iou[0] > _SAME
        if piece.is_cut:
            repeats |= shares.of_first[0] > _INSIDE
        is_kept[k] = not repeats.any()
    return [piece for piece, kept in zip(order, is_kept, strict=True) if kept]


def _extents(pieces: Sequence[Piece]) -> np.ndarray:
    """Return the extents of pieces, (N, 4)."""
    return np.array([piece.extent for piece in pieces]).reshape(-1, 4)


def _meet(extents: np.ndarray, box: masks.Box) -> np.ndarray:
    """Return which extents meet a box, (N,) bool."""
    x1, y1, x2, y2 = box
    return (extents[:, 0] < x2) & (x1 < extents[:, 2]) & (extents[:, 1] < y2) & (y1 < extents[:, 3])


@dataclass(frozen=True, slots=True)
class _Shares:
    """How much each pair of masks shares, (N, M): the IoU, and the intersection as a share of the first and second."""

    iou: np.ndarray
    of_first: np.ndarray
    of_second: np.ndarray


def _shares(first: Sequence[RLE], second: Sequence[RLE]) -> _Shares:
    iou = masks.iou(first, second)
    areas = np.array([masks.area(rle) for rle in first])[:, None], np.array([masks.area(rle) for rle in second])[None]
    if not second:
        return _Shares(iou, iou, iou)
    shared = iou * (areas[0] + areas[1]) / (1 + iou)
    return _Shares(iou, shared / np.maximum(areas[0], 1), shared / np.maximum(areas[1], 1))

"""Masks as COCO run-length encodings: encode, decode, measure, combine.

An RLE lists the lengths of alternating runs of background and foreground, column by column, and COCO packs
that list into a short string. Masks are stored and sent in this form: a 12-megapixel mask takes a few kilobytes.
The inner loops are hotcoco's (Rust), which only this file imports.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hotcoco import mask as hotcoco_mask

from s3seg.errors import InvalidRequestError, MaskError
from s3seg.results.polygons import Polygon, trace_polygons
from s3seg.results.simplify import simplify_polygons

MAX_PIXELS = 2**28
"""Masks of more pixels than this (16384 × 16384) are refused: decoding one would take more than 256 MB."""

Box: TypeAlias = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels; right and bottom are exclusive, so a single pixel is 1 wide."""

_MAX_CHARACTERS_PER_RUN = 7  # of 5 bits each: enough for any 32-bit run length


@dataclass(frozen=True, slots=True)
class RLE:
    """A binary mask as a compressed COCO run-length encoding, column-major.

    The constructor checks that the runs cover the picture exactly, so every RLE can be decoded.

    Attributes:
        size: (height, width) in pixels.
        counts: run lengths, background first, in COCO's compressed ASCII form.

    Raises:
        MaskError: the size is not positive or above `MAX_PIXELS`, or the counts are malformed or do not add up.
    """

    size: tuple[int, int]
    counts: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        if not isinstance(self.counts, str):
            raise MaskError(f"RLE counts must be text, got {type(self.counts).__name__}")
        _unpack(self)


def encode(mask: np.ndarray, *, offset: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None) -> RLE:
    """Encode a mask, or a crop of a mask that is background everywhere else.

    Fastest for column-major (Fortran order) arrays. Time and memory depend on the columns of the crop only.

    Args:
        mask: (H, W) bool or uint8; any non-zero value is foreground.
        offset: (y, x) of the crop's first pixel in the full mask.
        size: (height, width) of the full mask; by default the size of `mask`.

    Raises:
        MaskError: not a non-empty 2-D bool or uint8 array, or the crop reaches outside the full mask.
    """
    if mask.ndim != 2 or mask.size == 0 or mask.dtype not in (np.bool_, np.uint8):
        raise MaskError(f"a mask must be a 2-D bool or uint8 array, got {mask.dtype} of shape {mask.shape}")
    height, width = checked_size(mask.shape if size is None else size)
    y, x = offset
    if y < 0 or x < 0 or y + mask.shape[0] > height or x + mask.shape[1] > width:
        raise MaskError(f"a crop of {mask.shape} at {(y, x)} reaches outside a mask of {(height, width)}")
    if mask.shape == (height, width):
        return _trusted((height, width), hotcoco_mask.encode(mask)["counts"].decode("ascii"))
    strip = np.zeros((height, mask.shape[1]), dtype=np.bool_, order="F")
    strip[y : y + mask.shape[0]] = mask
    starts, ends = runs(_trusted(strip.shape, hotcoco_mask.encode(strip)["counts"].decode("ascii")))
    return from_runs(starts + x * height, ends + x * height, (height, width))


def decode(rle: RLE) -> np.ndarray:
    """Decode the mask: (H, W) bool, column-major."""
    return hotcoco_mask.decode(to_coco(rle)).view(np.bool_)


def decode_box(rle: RLE) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode the part of the mask inside its tight box; returns it with the box's (y, x).

    Only the columns of the box are decoded. An empty mask gives an array of shape (0, 0).
    """
    x1, y1, x2, y2 = (int(side) for side in box(rle))
    if x1 == x2:
        return np.zeros((0, 0), dtype=np.bool_), (0, 0)
    height = rle.size[0]
    starts, ends = runs(rle)
    strip = from_runs(starts - x1 * height, ends - x1 * height, (height, x2 - x1))
    return decode(strip)[y1:y2], (y1, x1)


def runs(rle: RLE) -> tuple[np.ndarray, np.ndarray]:
    """Return the foreground runs as starts and exclusive ends, (R,) int64, in column-major pixel order."""
    return _foreground(_unpack(rle))


def from_runs(starts: np.ndarray, ends: np.ndarray, size: tuple[int, int]) -> RLE:
    """Encode foreground runs, as `runs` returns them; adjacent runs, as at the end of a column, are merged.

    Args:
        starts: (R,) int64, ascending, in column-major pixel order.
        ends: (R,) int64, exclusive: each above its start, and not above the next one.
        size: (height, width) of the mask.
    """
    apart = starts[1:] != ends[:-1]
    if not apart.all():
        starts, ends = np.append(starts[:1], starts[1:][apart]), np.append(ends[:-1][apart], ends[-1:])
    edges = np.zeros(2 * len(starts) + 2, np.int64)
    edges[1:-1:2], edges[2:-1:2], edges[-1] = starts, ends, size[0] * size[1]
    counts = (edges[1:] - edges[:-1]).tolist()
    if counts[-1] == 0:
        counts.pop()
    return _trusted(size, hotcoco_mask.rle_to_string({"size": list(size), "counts": counts}))


def area(rle: RLE) -> int:
    """Count the foreground pixels."""
    return int(hotcoco_mask.area(to_coco(rle)))


def box(rle: RLE) -> Box:
    """Return the tight box around the mask; all zeros for an empty mask."""
    x, y, width, height = hotcoco_mask.to_bbox(to_coco(rle)).tolist()
    return x, y, x + width, y + height


def union(rles: Sequence[RLE]) -> RLE:
    """Return the pixels in any of one or more masks of the same size."""
    return _merge(rles, intersect=False)


def intersection(rles: Sequence[RLE]) -> RLE:
    """Return the pixels in all of one or more masks of the same size."""
    return _merge(rles, intersect=True)


def difference(rle: RLE, other: RLE) -> RLE:
    """Return the pixels in a mask that are not in another of the same size."""
    starts, ends = runs(other)
    edges = np.concatenate([[0], np.column_stack([starts, ends]).ravel(), [other.size[0] * other.size[1]]])
    starts, ends = edges[0::2], edges[1::2]
    apart = ends > starts
    return _merge([rle, from_runs(starts[apart], ends[apart], other.size)], intersect=True)


def iou(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """Return the IoU of every pair: (len(first), len(second)) float64, 0..1; two empty masks give 0."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    _one_size([*first, *second])
    pairs = hotcoco_mask.iou([to_coco(r) for r in first], [to_coco(r) for r in second], [0] * len(second))
    return np.asarray(pairs, dtype=np.float64)


def polygons(rle: RLE, *, tolerance: float = 0.0) -> list[Polygon]:
    """Trace the parts of the mask as polygons with holes; see `s3seg.results.polygons.trace_polygons`.

    Args:
        rle: the mask.
        tolerance: pixels by which an outline may move, to leave out vertices; see `s3seg.results.simplify`. With 0 the
            polygons are exact.

    Raises:
        InvalidRequestError: the tolerance is negative or not a number.
    """
    if not 0 <= tolerance < math.inf:
        raise InvalidRequestError(f"the tolerance is a number of pixels, 0 or more, got {tolerance!r:.60}")
    crop, offset = decode_box(rle)
    return simplify_polygons(trace_polygons(crop, offset=offset), tolerance)


def label_map(rles: Sequence[RLE], size: tuple[int, int]) -> np.ndarray:
    """Number every pixel with the first mask that covers it.

    Returns:
        (H, W) uint8, or uint16 for more than 255 masks: 0 is background, k the k-th mask (counted from 1).
        Where masks overlap, the earlier one wins; in a result that is the one with the higher score.

    Raises:
        MaskError: a mask has another size, or there are more than 65535 masks.
    """
    if len(rles) > np.iinfo(np.uint16).max:
        raise MaskError(f"a label map holds 65535 masks at most, got {len(rles)}")
    labels = np.zeros(checked_size(size), dtype=np.uint8 if len(rles) <= 255 else np.uint16)
    for k in range(len(rles), 0, -1):
        rle = rles[k - 1]
        if rle.size != labels.shape:
            raise MaskError(f"mask {k} has size {rle.size}, but the label map {labels.shape}")
        crop, (y, x) = decode_box(rle)
        labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = k
    return labels


def to_coco(rle: RLE) -> dict[str, Any]:
    """Return the COCO dictionary, `{"size": [height, width], "counts": "..."}`, ready for JSON."""
    return {"size": list(rle.size), "counts": rle.counts}


def from_coco(coco: Mapping[str, Any]) -> RLE:
    """Read a COCO dictionary with compressed (str or bytes) or uncompressed (list of int) counts.

    Runs of length zero, which some tools write, are merged away.

    Raises:
        MaskError: a key is missing, or size and counts do not describe a mask.
    """
    if not isinstance(coco, Mapping) or "size" not in coco or "counts" not in coco:
        raise MaskError(f"an RLE is a dictionary with 'size' and 'counts', got {str(coco)[:80]}")
    size, counts = checked_size(coco["size"]), coco["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    if isinstance(counts, str):
        rle = RLE(size, counts)
        return rle if np.all(_unpack(rle)[1:]) else from_runs(*runs(rle), size)
    if not isinstance(counts, Sequence) or not all(type(c) is int and 0 <= c <= MAX_PIXELS for c in counts):
        raise MaskError("RLE counts must be text or a list of run lengths")
    if sum(counts) != size[0] * size[1]:
        raise MaskError(f"RLE counts add up to {sum(counts)} pixels, but {size} has {size[0] * size[1]}")
    return from_runs(*_foreground(np.asarray(counts, dtype=np.int64)), size)


def from_coco_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> RLE:
    """Fill polygons as pycocotools does, and return the union.

    Args:
        polygons: each x1, y1, x2, y2 ... in pixels, at least three vertices.
        size: (height, width) of the mask.

    Raises:
        MaskError: a polygon is malformed, or has a vertex far outside of the picture.
    """
    height, width = checked_size(size)
    limit = 4 * max(height, width)
    for polygon in polygons:
        try:
            sides = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            sides = np.zeros(0)
        if sides.ndim != 1 or len(sides) < 6 or len(sides) % 2 or not np.all(np.abs(sides) <= limit):
            shape = "x1, y1, x2, y2 ... with three or more vertices near the picture"
            raise MaskError(f"a polygon is {shape}, got {polygon!r:.80}")
    filled = hotcoco_mask.frPyObjects([list(map(float, polygon)) for polygon in polygons], height, width)
    return union([from_coco(one) for one in filled])


def _trusted(size: tuple[int, int], counts: str) -> RLE:
    """Make an RLE without checking its counts, which were computed here; the check takes as long as encoding."""
    rle = object.__new__(RLE)
    object.__setattr__(rle, "size", size)
    object.__setattr__(rle, "counts", counts)
    return rle


def _foreground(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.cumsum(counts)
    starts, ends = edges[0::2][: len(edges) // 2], edges[1::2]
    return starts[ends > starts], ends[ends > starts]


def _unpack(rle: RLE) -> np.ndarray:
    """Run lengths (R,) int64 of COCO's compressed form, checked (maskApi.c, `rleFrString`).

    A number is a sequence of 5-bit digits, lowest first, each plus 48; a sixth bit says that another digit follows,
    and the top bit of the last digit is the sign. From the fourth number on, the value written is the difference
    from the number two before.
    """
    height, width = rle.size
    pixels = height * width
    if not rle.counts or len(rle.counts) > _MAX_CHARACTERS_PER_RUN * (pixels + 1):
        raise MaskError(f"RLE counts of {len(rle.counts)} characters cannot describe a mask of {rle.size}")
    digits = np.frombuffer(rle.counts.encode("ascii", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    if np.any((digits < 0) | (digits > 63)) or digits[-1] & 32 or not rle.counts.isascii():
        raise MaskError(f"RLE counts are not in COCO's compressed form: {rle.counts[:40]!r}")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    if place.max() >= _MAX_CHARACTERS_PER_RUN:
        raise MaskError(f"RLE counts hold a number that is too large: {rle.counts[:40]!r}")
    counts = np.add.reduceat((digits & 31) << 5 * place, first)
    counts -= np.where(digits[last] & 16, 32 << 5 * place[last], 0)
    counts[2::2] = np.cumsum(counts[2::2])
    counts[1::2] = np.cumsum(counts[1::2])
    if counts.min() < 0 or counts.sum() != pixels:
        raise MaskError(f"RLE counts do not add up to the {pixels} pixels of {rle.size}: {rle.counts[:40]!r}")
    return counts


def _merge(rles: Sequence[RLE], *, intersect: bool) -> RLE:
    if not rles:
        raise MaskError("no masks to combine")
    size = _one_size(rles)
    merged = hotcoco_mask.merge([to_coco(rle) for rle in rles], intersect)
    return _trusted(size, merged["counts"].decode("ascii"))


def _one_size(rles: Sequence[RLE]) -> tuple[int, int]:
    sizes = {rle.size for rle in rles}
    if len(sizes) != 1:
        raise MaskError(f"masks of different sizes: {sorted(sizes)}")
    return sizes.pop()


def checked_size(size: Any) -> tuple[int, int]:
    """Return (height, width) as positive ints; accepts NumPy integers, but neither floats nor bools.

    Raises:
        MaskError: the size is anything else, or has more than `MAX_PIXELS` pixels.
    """
    try:
        height, width = (operator.index(side) for side in size if not isinstance(side, bool))
    except (TypeError, ValueError):
        raise MaskError(f"a size is two whole numbers (height, width), got {str(size)[:80]}") from None
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise MaskError(f"a mask of {height} × {width} pixels is not between 1 and {MAX_PIXELS} pixels")
    return height, width

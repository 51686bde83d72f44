"""Find rings that crossed, touched or passed each other when they were simplified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from s3seg.results.polygons import Ring

_PAIRS_AT_ONCE = 2_000_000


def conflicting_rings(before: Sequence[Ring], after: Sequence[Ring]) -> set[int]:
    """Return the numbers of the rings of one mask that may not stay as they were simplified.

    These are rings whose edges have a point in common with other edges, beyond a vertex at which rings touched before;
    and rings that are on another side of another ring than before, such as a hole that is now outside of its part.

    Args:
        before: The rings of all polygons of a mask, valid.
        after: The same rings, simplified: each with some of its vertices, in order.
    """
    changed = np.array([len(new) < len(old) for old, new in zip(before, after, strict=True)])
    if not changed.any():
        return set()
    touching = _meeting_edges(after, changed)
    moved = touching or _on_another_side(before, after, changed)
    return {k for k in moved if changed[k]}


def _meeting_edges(rings: Sequence[Ring], changed: np.ndarray) -> set[int]:
    """Return the rings with edges that meet, except at a vertex that both have and where they do not cross."""
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    starts = np.concatenate(rings).astype(np.int64)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(np.int64)
    after_end = np.concatenate([np.roll(ring, -2, axis=0) for ring in rings]).astype(np.int64)
    found: set[int] = set()
    for i, j in _near_pairs(np.minimum(starts, ends), np.maximum(starts, ends)):
        use = changed[owner[i]] | changed[owner[j]]
        i, j = i[use], j[use]
        a, b, c, d = starts[i], ends[i], starts[j], ends[j]
        sides = [np.sign(_cross(b - a, p - a)) for p in (c, d)] + [np.sign(_cross(d - c, p - c)) for p in (a, b)]
        meet = (sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0)
        parallel = (sides[0] == 0) & (sides[1] == 0)
        meet &= ~parallel | np.all(np.minimum(np.maximum(a, b), np.maximum(c, d)) >= np.maximum(
            np.minimum(a, b), np.minimum(c, d)), axis=1)  # fmt: skip
        shared = _equal(a, c) | _equal(a, d) | _equal(b, c) | _equal(b, d)
        overlapping = parallel & _overlap(a, b, c, d)
        bad = meet & (~shared | overlapping)
        # two rings (or one, twice) that pass through the same vertex must not change sides there
        at_vertex = meet & _equal(b, d) & ~overlapping
        crossing = _crosses(a, b, after_end[i], c, after_end[j])
        bad |= at_vertex & crossing
        found.update(np.unique(np.concatenate([owner[i[bad]], owner[j[bad]]])).tolist())
    return found


def _near_pairs(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of boxes (E, 2) that meet, each pair once, in portions."""
    order = np.argsort(low[:, 0], kind="stable")
    last = np.searchsorted(low[order, 0], high[order, 0], side="right")
    counts = last - np.arange(len(order)) - 1
    begin = 0
    while begin < len(order):
        total = np.cumsum(counts[begin:])
        portion = max(1, int(np.searchsorted(total, _PAIRS_AT_ONCE)))
        some = counts[begin : begin + portion]
        first = np.repeat(np.arange(begin, begin + len(some)), some)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(some) - some, some)
        i, j = order[first], order[second]
        meet = (low[i, 1] <= high[j, 1]) & (low[j, 1] <= high[i, 1])
        yield i[meet], j[meet]
        begin += portion


def _on_another_side(before: Sequence[Ring], after: Sequence[Ring], changed: np.ndarray) -> set[int]:
    """Return the rings that contain a vertex of another ring which they did not contain before, or the reverse."""
    probes = _probes(after)
    found: set[int] = set()
    for k, (old, new) in enumerate(zip(before, after, strict=True)):
        if not changed[k] or not len(probes):
            continue
        low, high = old.min(axis=0), old.max(axis=0)
        ring, points = probes[:, 0], probes[:, 1:]
        near = (ring != k) & np.all((points >= low) & (points <= high), axis=1)
        if near.any():
            differs = _inside(points[near], old) != _inside(points[near], new)
            if differs.any():
                found.update([k, *ring[near][differs].tolist()])
    return found


def _probes(rings: Sequence[Ring]) -> np.ndarray:
    """Return (P, 3) ring number, x, y: a vertex of each ring that no other ring has; none where there is no such."""
    everything = np.concatenate(rings).astype(np.int64)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    _, inverse, counts = np.unique(everything, axis=0, return_inverse=True, return_counts=True)
    alone = counts[inverse.reshape(-1)] == 1
    _, index = np.unique(owner[alone], return_index=True)
    return np.column_stack([owner[alone][index], everything[alone][index]])


def _inside(points: np.ndarray, ring: Ring) -> np.ndarray:
    """Return whether points (K, 2) are inside a ring, by the number of its edges to their left."""
    inside = np.zeros(len(points), bool)
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    for k, (px, py) in enumerate(points.tolist()):
        cuts = (y > py) != (next_y > py)
        at = x[cuts] + (py - y[cuts]) / (next_y[cuts] - y[cuts]) * (next_x[cuts] - x[cuts])
        inside[k] = np.count_nonzero(at < px) % 2
    return inside


def _crosses(a: np.ndarray, v: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return whether the path c-v-d changes sides of the path a-v-b at v."""

    def angle(p: np.ndarray) -> np.ndarray:
        return np.arctan2(p[:, 1] - v[:, 1], p[:, 0] - v[:, 0])

    base = angle(a)
    to_b, to_c, to_d = (np.mod(angle(p) - base, 2 * np.pi) for p in (b, c, d))
    return (to_c < to_b) != (to_d < to_b)


def _overlap(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return whether edges on one line have more than a point in common."""
    along = np.argmax(np.abs(b - a), axis=1)
    rows = np.arange(len(a))
    one = np.sort(np.stack([a[rows, along], b[rows, along]]), axis=0)
    other = np.sort(np.stack([c[rows, along], d[rows, along]]), axis=0)
    return np.minimum(one[1], other[1]) > np.maximum(one[0], other[0])


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


def _equal(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.all(p == q, axis=1)

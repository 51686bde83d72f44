"""Polygons with fewer vertices, for people to edit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s3seg.results.simplify import simplify_ring


@given(st.integers(0, 2**31), st.floats(0.5, 6))
def test_a_simplified_ring_stays_within_the_tolerance(seed, tolerance):
    random = np.random.default_rng(seed)
    angles = np.sort(random.random(40)) * 2 * np.pi
    radii = 30 + 10 * random.random(40)
    ring = np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1).round().astype(np.int32)
    kept = simplify_ring(ring, tolerance)
    assert 3 <= len(kept) <= len(ring)
    starts, ends = kept.astype(float), np.roll(kept, -1, axis=0).astype(float)
    for point in ring.astype(float):
        along = ends - starts
        share = np.clip(((point - starts) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-9), 0, 1)
        distances = np.linalg.norm(starts + share[:, None] * along - point, axis=1)
        assert distances.min() <= tolerance + 1e-9


def test_a_straight_ring_keeps_its_corners_only():
    square = np.array([[0, 0], [5, 0], [10, 0], [10, 10], [5, 10], [0, 10], [0, 5]])
    assert simplify_ring(square, 0.5).tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert len(simplify_ring(square, 100)) == 3

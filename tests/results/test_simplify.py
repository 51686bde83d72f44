"""Simplified polygons beside shapely: valid, with every part and hole, and no outline moved beyond the tolerance."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.polygons import trace_polygons
from s3seg.results.simplify import simplify_polygons
from tests.results.small_results import discs, result_of


def blobs(seed: int, height: int, width: int, *, smooth: float, share: float) -> np.ndarray:
    """A mask with ragged parts and holes that touch and nest."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), smooth)
    return noise > np.quantile(noise, 1 - share)


def check(mask: np.ndarray, tolerance: float) -> list:
    exact = trace_polygons(mask)
    simple = simplify_polygons(exact, tolerance)
    assert [len(polygon) for polygon in simple] == [len(polygon) for polygon in exact]
    parts = shapely.MultiPolygon([shapely.Polygon(polygon[0], polygon[1:]) for polygon in simple])
    assert parts.is_valid, shapely.is_valid_reason(parts)
    for before, after in zip(exact, simple, strict=True):
        for old, new in zip(before, after, strict=True):
            rings = shapely.LinearRing(old), shapely.LinearRing(new)
            assert shapely.hausdorff_distance(*rings, densify=0.2) <= tolerance + 1e-9
            assert {tuple(vertex) for vertex in new.tolist()} <= {tuple(vertex) for vertex in old.tolist()}
    return simple


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    smooth=st.floats(0, 4),
    share=st.floats(0.05, 0.95),
    tolerance=st.sampled_from([0.3, 0.5, 1.0, 1.5, 3.0, 8.0]),
)
def test_polygons_stay_valid_and_within_the_tolerance(seed, size, smooth, share, tolerance):
    check(blobs(seed, *size, smooth=smooth, share=share), tolerance)


@pytest.mark.slow
def test_thousands_of_ragged_masks_stay_valid_and_within_the_tolerance():
    rng = np.random.default_rng(0)
    for seed in range(3000):
        height, width = rng.integers(1, 80, 2)
        mask = blobs(seed, height, width, smooth=rng.uniform(0, 4), share=rng.uniform(0.05, 0.95))
        check(mask, float(rng.choice([0.3, 0.5, 1.0, 1.5, 3.0, 8.0])))


def test_a_hole_beside_the_outline_stays_inside():
    mask = np.zeros((60, 60), bool)
    y, x = np.mgrid[:60, :60]
    mask[(x + y > 40) & (x < 55) & (y < 55)] = True
    mask[21:23, 22:24] = False  # two pixels from the slanted edge
    simple = check(mask, 10.0)
    assert shapely.Polygon(simple[0][0]).contains(shapely.Polygon(simple[0][1]))


def test_a_large_disc_loses_most_of_its_vertices():
    (mask,) = discs(400, 400, (200, 200, 180))
    exact, simple = trace_polygons(mask), check(mask, 1.5)
    assert len(simple[0][0]) * 10 < len(exact[0][0])
    area = shapely.Polygon(simple[0][0]).area
    assert abs(area - mask.sum()) / mask.sum() < 0.01


def test_without_tolerance_polygons_are_exact():
    (mask,) = discs(40, 60, (20, 30, 15))
    rle = masks.encode(mask)
    for one, other in zip(masks.polygons(rle)[0], masks.polygons(rle, tolerance=0)[0], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance):
    with pytest.raises(InvalidRequestError, match="number of pixels"):
        result_of(discs(8, 8, (4, 4, 3))).to_polygons(tolerance=tolerance)

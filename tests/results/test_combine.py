"""Results merged into one, and pixels given to one instance each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from s3seg import merge, without_overlaps
from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.hints import Hint
from tests.results.small_results import discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (22, 34, 12))


def test_a_merged_result_has_everything_best_first():
    cats = result_of(STACK[:2], prompt="cat", scores=[0.9, 0.3], presence=0.5, timings={"image": 5, "prompt": 1})
    hint = Hint("unknown_words", "unknown")
    kittens = result_of(
        STACK[2:], prompt="kitten", scores=[0.6], threshold=0.2, timings={"image": 5, "prompt": 2}, hints=(hint,)
    )
    merged = merge([cats, kittens])
    assert merged.prompt == "cat, kitten"
    assert merged.scores.tolist() == pytest.approx([0.9, 0.6, 0.3])
    assert (merged.presence, merged.threshold) == (0.98, 0.2)
    assert merged.timings == {"image": 5, "prompt": 3}
    assert merged.hints == (hint,)
    assert merge([cats, kittens], prompt="pet").prompt == "pet"


def test_of_instances_that_are_the_same_the_best_stays():
    cats = result_of(STACK[:1], prompt="cat", scores=[0.5])
    pets = result_of(STACK[:2], prompt="pet", scores=[0.9, 0.4])
    merged = merge([cats, pets], max_iou=0.5)
    assert merged.scores.tolist() == pytest.approx([0.9, 0.4])
    assert len(merge([cats, pets])) == 3
    assert len(merge([empty_result((40, 60)), cats], max_iou=0)) == 1


def test_results_of_several_pictures_or_none_are_not_merged():
    one, other = (result_of(STACK[:1], source=name) for name in ("a.png", "b.png"))
    with pytest.raises(InvalidRequestError, match=r"a\.png and b\.png"):
        merge([one, other])
    with pytest.raises(InvalidRequestError, match="no result"):
        merge([])
    with pytest.raises(InvalidRequestError, match="max_iou"):
        merge([one], max_iou=2)


@given(npst.arrays(np.bool_, (5, 6, 7)), st.permutations(range(5)))
def test_every_pixel_belongs_to_the_best_instance_that_has_it(stack, order):
    scores = np.array([0.9, 0.7, 0.5, 0.3, 0.1])
    first, second = order[:2], order[2:]
    results = [result_of(stack[list(some)], prompt=name, scores=scores[list(some)]) for some, name in
               ((first, "a"), (second, "b"))]  # fmt: skip
    owner = np.where(stack.any(axis=0), stack.argmax(axis=0), -1)  # the lowest number has the highest score
    resolved = without_overlaps(results)
    assert [one.prompt for one in resolved] == ["a", "b"]
    seen = {}
    for result in resolved:
        for one in result:
            seen[round(one.score, 1)] = one.mask
    for k, score in enumerate(scores):
        mask = seen.get(round(float(score), 1), np.zeros((6, 7), bool))
        assert np.array_equal(mask, owner == k)


@given(npst.arrays(np.bool_, (2, 6, 7)))
def test_the_difference_of_masks_is_that_of_pixels(pair):
    one, other = map(masks.encode, pair)
    assert np.array_equal(masks.decode(masks.difference(one, other)), pair[0] & ~pair[1])

from __future__ import annotations

import pytest

from s3seg.checkpoints.vocabulary import Vocabulary

KNOWN = Vocabulary(["cat", "hot dog", "red", "circle", "cherries", "fox", "knife", "leaf", "bus", "ice cream"])


@pytest.mark.parametrize(
    "prompt",
    [
        "cat",
        "a cat",
        "THE CATS",
        "red circles",
        "hot dogs",
        "foxes",
        "knives",
        "leaves",
        "buses",
        "cherries",
        "red-fox",
    ],
)
def test_known_words_are_known_in_every_form(prompt):
    assert KNOWN.unknown(prompt) == []
    assert prompt in KNOWN


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("zebra", ["zebra"]),
        ("a red zebra and a cat", ["zebra", "and"]),
        ("hot", ["hot"]),
        ("hot cat", ["hot"]),
        ("dog", ["dog"]),
        ("고양이", ["고양이"]),
        ("c@t", ["c", "t"]),
        ("🐱", ["🐱"]),
        (" the ", ["the"]),
        ("?!", ["?!"]),
    ],
)
def test_the_words_it_does_not_know_are_named_in_order(prompt, unknown):
    assert KNOWN.unknown(prompt) == unknown
    assert prompt not in KNOWN


def test_an_empty_vocabulary_knows_nothing():
    assert Vocabulary([]).unknown("cat") == ["cat"]

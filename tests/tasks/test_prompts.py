"""Prompts as people type them have one normal form."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.errors import PromptError
from s3seg.tasks.prompts import normalize_prompt, normalize_prompts, several_things_hint


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("car", "car"),
        ("  red   car ", "red car"),
        ("car\n", "car"),
        ("car\r\n\r\n", "car"),
        ("\tcar", "car"),
        ("traffic\nlight", "traffic light"),
        ("traffic\u00a0light", "traffic light"),  # no-break space
        ("traffic\u202flight", "traffic light"),  # narrow no-break space
        ("\u3000car", "car"),  # ideographic space
        ("\ufeffcar", "car"),  # byte order mark
        ("c\u200bar\u200b", "car"),  # zero-width space
        ("c\u00adar", "car"),  # soft hyphen
        ("\u200ecar\u200f", "car"),  # direction marks
        ("\u2068car\u2069", "car"),  # isolates of iOS
        ("car\ufffc", "car"),  # left by dictation
        ("car\u200d", "car"),  # a joiner that joins nothing
        ("\u201ccar\u201d", "car"),
        ('"red car"', "red car"),
        ("\u2018car\u2019", "car"),
        ("man\u2019s hat", "man's hat"),
        ("t\u2011shirt", "t-shirt"),
        ("t\u2013shirt", "t-shirt"),
        ("car. ", "car"),  # a phone writes a full stop for two spaces
        ("car,", "car"),
        ("car . ; ...", "car"),
        ("...", "."),
        ("\uff43\uff41\uff52", "car"),  # full-width letters
        ("cafe\u0301", "caf\u00e9"),
        ("Car", "Car"),  # case is kept
        ("man's", "man's"),
        ('12" pizza', '12" pizza'),
        ("U.S. flag", "U.S. flag"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),  # one emoji
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("", ""),
        (" \u200b\n", ""),
        ("\u3164", ""),  # Hangul filler
    ],
)
def test_what_keyboards_add_to_a_prompt_is_taken_away(typed: str, normal: str) -> None:
    assert normalize_prompt(typed) == normal


@given(st.text(st.one_of(st.characters(), st.sampled_from("\"'., \u200b\u200d\u2019\u201c\n\u0301"))))
def test_normalizing_twice_is_normalizing_once(text: str) -> None:
    normal = normalize_prompt(text)
    assert normalize_prompt(normal) == normal
    assert normal == normal.strip()
    assert unicodedata.is_normalized("NFC", normal)


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1))
def test_a_plain_word_stays_as_it_is(word: str) -> None:
    assert normalize_prompt(word) == word


def test_one_prompt_or_several_become_a_list() -> None:
    assert normalize_prompts("car\n") == ["car"]
    assert normalize_prompts(("car ", "car", "tree")) == ["car", "car", "tree"]
    assert normalize_prompts(np.array(["car", "tree"])) == ["car", "tree"]
    assert normalize_prompts(one for one in ["car"]) == ["car"]
    assert [type(one) for one in normalize_prompts(np.array(["car"]))] == [str]
    assert normalize_prompts([]) == []


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (b"car", "decode"),
        (bytearray(b"car"), "decode"),
        (5, "int 5"),
        (None, "NoneType"),
        (float("nan"), "float nan"),
        ({"car": 1}, "dict"),
        (np.array(3), "ndarray"),
        (["car", None], "number 2 of the list"),
        ([b"car"], "bytes b'car'"),
        ([["car", "tree"]], "list ['car', 'tree']"),
        ([float("nan")], "float nan"),
    ],
)
def test_what_is_not_text_is_refused_with_what_it_is(prompts: object, says: str) -> None:
    with pytest.raises(PromptError) as error:
        normalize_prompts(prompts)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("car, tree", '["car", "tree"]'),
        ("car,tree,dog", '["car", "tree", "dog"]'),
        ("car; tree", '["car", "tree"]'),
        ("car | tree", '["car", "tree"]'),
        ("car/tree", '["car", "tree"]'),
        ("car and tree", '["car", "tree"]'),
        ("car & tree", '["car", "tree"]'),
        ("car . tree", '["car", "tree"]'),
        ("car. tree", '["car", "tree"]'),
        ('["car", "tree"]', '["car", "tree"]'),
        (normalize_prompt("\u8eca\u3001\u6728"), '["\u8eca", "\u6728"]'),
    ],
)
def test_a_list_in_one_prompt_gets_a_hint_that_shows_the_list(prompt: str, things: str) -> None:
    hint = several_things_hint(prompt)
    assert hint is not None
    assert f"one prompt each: {things}, or -p " in hint


@pytest.mark.parametrize(
    "prompt", ["car", "red car", "t-shirt", "1,000 cars", "1/2 apple", "sandcastle", "man's hat", "St. Bernard", ""]
)
def test_one_thing_gets_no_hint(prompt: str) -> None:
    assert several_things_hint(prompt) is None

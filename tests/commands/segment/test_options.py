from __future__ import annotations

from pathlib import Path

import pytest

from s3seg.commands.segment.options import parse_box, several_things_advice, split_words
from s3seg.errors import InvalidRequestError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "notes"):
        Path(name).touch()
    Path("cat").mkdir()


@pytest.mark.parametrize(
    ("words", "prompts", "pictures", "found"),
    [
        (["a.png", "dog"], [], ["a.png"], ["dog"]),
        (["a.png", "b.jpg", "red car"], [], ["a.png", "b.jpg"], ["red car"]),
        (["a.png", "dog"], ["bird"], ["a.png"], ["dog", "bird"]),
        (["a.png", "b.jpg"], ["bird"], ["a.png", "b.jpg"], ["bird"]),
        (["a.png"], ["bird", "dog"], ["a.png"], ["bird", "dog"]),
        (["a.png", "gone.png"], ["bird"], ["a.png", "gone.png"], ["bird"]),
        (["a.png", "http://example.org/x"], ["bird"], ["a.png", "http://example.org/x"], ["bird"]),
        (["a.png", "*.jpg"], ["bird"], ["a.png", "*.jpg"], ["bird"]),
        (["a.png", "-"], ["bird"], ["a.png", "-"], ["bird"]),
        (["a.png", "notes"], ["bird"], ["a.png", "notes"], ["bird"]),
        (["a.png", "dog"], ["dog"], ["a.png"], ["dog"]),
        (["a.png", "cat"], [], ["a.png"], ["cat"]),  # a folder is called so too, but a prompt is needed
    ],
)
def test_the_last_word_is_a_prompt_unless_another_option_says_it_and_it_names_a_picture(
    words: list[str], prompts: list[str], pictures: list[str], found: list[str]
) -> None:
    assert split_words(words, prompts) == (pictures, found)


def test_boxes_need_no_prompt() -> None:
    assert split_words(["a.png"], [], has_marks=True) == (["a.png"], [])
    assert split_words(["a.png", "dog"], [], has_marks=True) == (["a.png"], ["dog"])


@pytest.mark.parametrize("word", ["found.json", "sub/", "./notes", "labels.v1"])
def test_an_existing_file_or_folder_at_the_end_is_a_forgotten_prompt(word: str) -> None:
    Path("sub").mkdir()
    Path("labels.v1").mkdir()
    Path("found.json").touch()
    with pytest.raises(InvalidRequestError, match=r"no prompt: .* is a (file|folder)"):
        split_words(["a.png", word], [])


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["car\n"], ["car"]),
        (["car ", " car", "car"], ["car"]),
        (["red\ncar", "red  car"], ["red car"]),
        (["\u201ccar\u201d", "dog."], ["car", "dog"]),
        (["Car", "car"], ["Car", "car"]),
    ],
)
def test_prompts_are_normalized_before_duplicates_are_dropped(typed: list[str], found: list[str]) -> None:
    assert split_words(["a.png", *typed[:1]], typed[1:]) == (["a.png"], found)
    assert split_words(["a.png"], typed) == (["a.png"], found)


@pytest.mark.parametrize("prompt", ["", " ", "\n", "\u200b", "\u00a0"])
def test_a_prompt_of_nothing_that_shows_is_empty(prompt: str) -> None:
    with pytest.raises(InvalidRequestError, match="the prompt is empty"):
        split_words(["a.png", prompt], [])


def test_a_prompt_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not valid UTF-8"):
        split_words(["a.png", "caf\udce9"], [])


def test_a_list_of_things_gets_the_command_for_one_prompt_each() -> None:
    command = r"s3seg segment 'my photo.png' car -p 'red house' -p tree"
    assert command in several_things_advice(["my photo.png"], ["car, red house", "tree"])["car, red house"]
    assert several_things_advice(["a.png", "b.png"], ["car; tree"])["car; tree"].endswith(
        "s3seg segment a.png ... car -p tree"
    )
    assert several_things_advice(["a.png"], ["car", "red car"]) == {}


@pytest.mark.parametrize("words", [["a.png"], ["a.png", "b.jpg"], ["a.png", "gone.webp"], ["a.png", "-"], ["cat"]])
def test_a_forgotten_prompt_is_reported_with_an_example(words: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r'no prompt.*example: s3seg segment photo.jpg "cat"'):
        split_words(words, [])


@pytest.mark.parametrize(("words", "prompts"), [(["dog"], []), (["dog"], ["bird"])])
def test_a_forgotten_picture_is_reported_with_an_example(words: list[str], prompts: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r"no picture: name one before the prompt 'dog'; example"):
        split_words(words, prompts)


@pytest.mark.parametrize(("words", "prompts"), [(["a.png", " "], []), (["a.png"], [""])])
def test_an_empty_prompt_is_refused(words: list[str], prompts: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="prompt is empty"):
        split_words(words, prompts)


def test_a_box_is_four_numbers_in_order() -> None:
    assert parse_box("1,2.5, 30,40") == (1, 2.5, 30, 40)
    for wrong in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "5,2,1,4", "1,2,3,2", "nan,0,1,1", "0,0,inf,1"):
        with pytest.raises(InvalidRequestError, match="a box is x1,y1,x2,y2"):
            parse_box(wrong)

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.commands.arguments import distinct, parse_box, slug, split
from s3seg.commands.pictures import find
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
    assert split(words, prompts) == (pictures, found)


def test_boxes_alone_say_what_to_look_for() -> None:
    assert split(["a.png"], [], has_boxes=True) == (["a.png"], [])
    assert split(["a.png", "dog"], [], has_boxes=True) == (["a.png"], ["dog"])


@pytest.mark.parametrize("words", [["a.png"], ["a.png", "b.jpg"], ["a.png", "gone.webp"], ["a.png", "-"], ["cat"]])
def test_a_forgotten_prompt_is_told_with_an_example(words: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r'say what to look for.*s3seg segment photo.jpg "cat"'):
        split(words, [])


@pytest.mark.parametrize(("words", "prompts"), [(["dog"], []), (["dog"], ["bird"])])
def test_a_forgotten_picture_is_told_with_an_example(words: list[str], prompts: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r"name pictures before the prompt 'dog'"):
        split(words, prompts)


@pytest.mark.parametrize(("words", "prompts"), [(["a.png", " "], []), (["a.png"], [""])])
def test_an_empty_prompt_is_refused(words: list[str], prompts: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="prompt is empty"):
        split(words, prompts)


def test_a_box_is_four_numbers_in_order() -> None:
    assert parse_box("1,2.5, 30,40") == (1, 2.5, 30, 40)
    for wrong in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "5,2,1,4", "1,2,3,2", "nan,0,1,1", "0,0,inf,1"):
        with pytest.raises(InvalidRequestError, match="a box is x1,y1,x2,y2"):
            parse_box(wrong)


@given(st.text())
def test_a_slug_is_a_part_of_a_file_name_on_any_system(text: str) -> None:
    assert 1 <= len(slug(text)) <= 40
    assert not set(slug(text)) & set('<>:"/\\|?*. \0')


@given(st.lists(st.sampled_from(["a", "A", "a-2", "b", "a-2-2"])))
def test_distinct_names_differ_even_where_case_does_not_count(names: list[str]) -> None:
    made = distinct(names)
    assert len({name.casefold() for name in made}) == len(names)
    assert all(name.startswith(was) for name, was in zip(made, names, strict=True))


def _names(*words: str) -> dict[str, str]:
    for word in words:
        if "://" not in word and word != "-":
            Path(word).parent.mkdir(exist_ok=True)
            Path(word).touch()
    found = find(words, recursive=False, leave_out=lambda path: False, on_error=lambda word, err: pytest.fail(str(err)))
    return {str(picture.source): picture.name for picture in found}


def test_a_picture_gives_its_outputs_its_own_name() -> None:
    assert _names("a.png", "x/b.v2.jpg", "-", "http://example.org/pics/c.jpeg?size=2") == {
        "a.png": "a",
        "x/b.v2.jpg": "b.v2",
        "-": "stdin",
        "http://example.org/pics/c.jpeg?size=2": "c",
    }


def test_pictures_of_the_same_name_get_as_much_of_their_paths_as_tells_them_apart() -> None:
    assert _names("x/a.png", "y/a.png", "b.png") == {"x/a.png": "x_a", "y/a.png": "y_a", "b.png": "b"}
    assert _names("x/a.png", "x/A.jpg") == {"x/a.png": "a-png", "x/A.jpg": "A-jpg"}
    assert _names("x/a.png", "x/a.jpg", "y/a.png") == {
        "x/a.png": "x_a-png",
        "x/a.jpg": "x_a-jpg",
        "y/a.png": "y_a-png",
    }
    url = "http://example.org/a.png"
    assert _names(f"{url}?1", f"{url}?2") == {f"{url}?1": "example.org_a", f"{url}?2": "example.org_a-2"}


def test_made_up_names_do_not_meet_real_ones() -> None:
    assert sorted(_names("x/a.png", "y/a.png", "x_a.png").values()) == ["x_a", "x_a-2", "y_a"]


def test_a_picture_that_is_named_twice_is_done_once() -> None:
    assert list(_names("a.png", "./a.png", str(Path("a.png").absolute()))) == ["a.png"]

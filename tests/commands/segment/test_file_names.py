from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.commands.segment.file_names import distinct, fitted, safe, slug
from s3seg.commands.segment.pictures import find_pictures


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
            Path(word).parent.mkdir(exist_ok=True, parents=True)
            Path(word).touch()
    return _found(*words, recursive=False)


def _found(*inputs: str, recursive: bool, reserved: Sequence[str] = ()) -> dict[str, str]:
    found = find_pictures(
        inputs,
        recursive=recursive,
        exclude=lambda path: False,
        on_error=lambda err: pytest.fail(str(err)),
        reserved=reserved,
    )
    return {str(picture.source): picture.name for picture in found}


def test_a_picture_gives_its_outputs_its_own_name() -> None:
    assert _names("a.png", "x/b.v2.jpg", "-", "http://example.org/pics/c.jpeg?size=2") == {
        "a.png": "a",
        "x/b.v2.jpg": "b.v2",
        "-": "stdin",
        "http://example.org/pics/c.jpeg?size=2": "c",
    }


def test_pictures_of_the_same_name_are_named_by_their_paths_below_the_folder_that_they_share() -> None:
    assert _names("x/a.png", "y/a.png", "b.png") == {"x/a.png": "x/a", "y/a.png": "y/a", "b.png": "b"}
    assert _names("p/q/a.png", "p/r/a.png") == {"p/q/a.png": "q/a", "p/r/a.png": "r/a"}
    assert _names("x/a.png", "x/A.jpg") == {"x/a.png": "a-png", "x/A.jpg": "A-jpg"}
    assert _names("x/a.png", "x/a.jpg", "y/a.png") == {
        "x/a.png": "x/a-png",
        "x/a.jpg": "x/a-jpg",
        "y/a.png": "y/a",
    }
    url = "http://example.org/a.png"
    assert _names(f"{url}?1", f"{url}?2") == {f"{url}?1": "a-png", f"{url}?2": "a-png-2"}
    assert _names("http://one.org/a.png", "http://two.org/p/a.png") == {
        "http://one.org/a.png": "one.org/a",
        "http://two.org/p/a.png": "two.org/p/a",
    }


def test_derived_names_give_way_to_real_ones() -> None:
    assert _names("x/a.png", "x/a.jpg", "x/a-png.gif") == {
        "x/a.png": "a-png-2",
        "x/a.jpg": "a-jpg",
        "x/a-png.gif": "a-png",
    }


@pytest.mark.parametrize("inputs", [["in"], ["in/**/*.png"]])
def test_names_mirror_the_folder_that_is_searched(inputs: list[str]) -> None:
    for place in ("in/a.png", "in/b/a.png", "in/b/c/d.png"):
        Path(place).parent.mkdir(exist_ok=True, parents=True)
        Path(place).touch()
    assert _found(*inputs, recursive=True) == {"in/a.png": "a", "in/b/a.png": "b/a", "in/b/c/d.png": "b/c/d"}


def test_pictures_below_two_folders_are_named_with_the_folders_if_that_is_needed() -> None:
    for place in ("one/p/a.png", "one/b.png", "two/p/a.png"):
        Path(place).parent.mkdir(exist_ok=True, parents=True)
        Path(place).touch()
    assert _found("one", "two", recursive=True) == {
        "one/b.png": "one/b",
        "one/p/a.png": "one/p/a",
        "two/p/a.png": "two/p/a",
    }
    Path("two/p/a.png").rename("two/p/z.png")
    assert _found("one", "two", recursive=True) == {"one/b.png": "b", "one/p/a.png": "p/a", "two/p/z.png": "p/z"}


def test_a_link_is_named_after_itself_and_two_links_to_a_file_are_two_pictures() -> None:
    Path("store").mkdir()
    Path("store/3fa9").touch()
    for link in ("1.png", "2.png"):
        Path(link).symlink_to("store/3fa9")
    assert _found("1.png", "./2.png", "2.png", recursive=False) == {"1.png": "1", "2.png": "2"}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("con", "_con"),
        ("AUX.v2", "_AUX.v2"),
        ("lpt1", "_lpt1"),
        ("console", "console"),
        ("a.", "a_"),
        ("a ", "a_"),
        ("..", "._"),
        (".", "_"),
        ("", "_"),
        ("12:30", "12-30"),
        ("\x7f", "-"),
    ],
)
def test_names_that_some_system_does_not_allow_are_changed(part: str, name: str) -> None:
    assert safe(part) == name


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from([".txt", ".a-prompt.mask.png"]))
def test_a_file_name_is_never_too_long_and_keeps_its_ending(text: str, ending: str) -> None:
    for name in (text, text * 100):
        made = fitted(name, ending)
        assert len(made.encode()) <= 255
        assert made.endswith(ending)
        assert made == name + ending or len((name + ending).encode()) > 255


def test_long_names_that_differ_at_their_ends_stay_apart() -> None:
    assert fitted("x" * 300 + "1", ".txt") != fitted("x" * 300 + "2", ".txt")


def test_no_part_of_an_address_leads_out_of_the_output_folder() -> None:
    url = "http://example.org/../../a/..%2F../b.png"
    names = _names(url, "http://example.org/b.png")
    assert not any({"..", "."} & set(name.split("/")) for name in names.values()), names


def test_no_picture_gets_a_name_that_the_output_needs() -> None:
    Path("Classes.png").touch()
    assert _found("Classes.png", recursive=False, reserved=["classes"]) == {"Classes.png": "Classes-2"}


def test_a_picture_that_is_named_twice_is_done_once() -> None:
    assert list(_names("a.png", "./a.png", str(Path("a.png").absolute()))) == ["a.png"]

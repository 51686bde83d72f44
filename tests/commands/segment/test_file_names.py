from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.commands.segment.file_names import distinct, slug
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
            Path(word).parent.mkdir(exist_ok=True)
            Path(word).touch()
    found = find_pictures(
        words, recursive=False, exclude=lambda path: False, on_error=lambda err: pytest.fail(str(err))
    )
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


def test_derived_names_do_not_collide_with_real_ones() -> None:
    assert sorted(_names("x/a.png", "y/a.png", "x_a.png").values()) == ["x_a", "x_a-2", "y_a"]


def test_a_picture_that_is_named_twice_is_done_once() -> None:
    assert list(_names("a.png", "./a.png", str(Path("a.png").absolute()))) == ["a.png"]

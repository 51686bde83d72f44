"""What a user names becomes a list of images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3seg.errors import InvalidRequestError
from s3seg.images.sources import expand, image_suffixes


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "photos"
    (folder / "summer" / ".thumbnails").mkdir(parents=True)
    for name in (
        "b.PNG",
        "a.jpg",
        "notes.txt",
        "._a.jpg",
        ".hidden.png",
        "summer/c.webp",
        "summer/.thumbnails/t.png",
    ):
        (folder / name).touch()
    monkeypatch.chdir(tmp_path)
    return folder


def _names(inputs: list[str | Path], **options: bool) -> list[str]:
    return [Path(image).name if isinstance(image, Path) else image for image in expand(inputs, **options)]


def test_a_folder_gives_its_pictures_sorted_and_without_hidden_files(photos: Path) -> None:
    assert _names([photos]) == ["a.jpg", "b.PNG"]


def test_subfolders_are_searched_when_asked(photos: Path) -> None:
    assert _names([photos], recursive=True) == ["a.jpg", "b.PNG", "c.webp"]


def test_a_glob_gives_the_pictures_that_match(photos: Path) -> None:
    assert _names(["photos/*"]) == ["a.jpg", "b.PNG"]
    assert _names(["photos/**/*"]) == ["a.jpg", "b.PNG", "c.webp"]


def test_a_file_with_brackets_in_its_name_is_itself_and_not_a_glob(photos: Path) -> None:
    (photos / "a[1].jpg").touch()
    assert _names([photos / "a[1].jpg"]) == ["a[1].jpg"]


def test_what_is_named_twice_is_listed_once_in_the_first_place(photos: Path) -> None:
    again = f"photos{os.sep}..{os.sep}photos{os.sep}a.jpg"
    assert _names(["photos/b.PNG", "photos", again, "-", "-"]) == ["b.PNG", "a.jpg", "-"]


def test_urls_and_plain_files_are_taken_as_they_are(photos: Path) -> None:
    url = "https://example.org/cat?size=*"
    assert expand([url, "photos/notes.txt", "missing.png"]) == [
        url,
        Path("photos/notes.txt"),
        Path("missing.png"),
    ]


def test_a_name_that_no_disk_can_hold_is_left_for_opening_to_refuse(photos: Path) -> None:
    assert expand(["x" * 5000]) == [Path("x" * 5000)]


def test_a_folder_whose_pictures_are_all_deeper_says_so(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.png").touch()
    with pytest.raises(InvalidRequestError, match="1 in its subfolders"):
        expand([tmp_path])


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("photos/*.png2", "nothing matches"),
        ("photos/*.txt", "none of the 1 names"),
        ("photos/summer", "no picture in the folder"),
    ],
)
def test_an_input_without_any_picture_is_an_error_that_names_it(photos: Path, named: str, message: str) -> None:
    (photos / "summer" / "c.webp").unlink()
    with pytest.raises(InvalidRequestError, match=message):
        expand([named])


def test_no_input_at_all_is_an_error() -> None:
    with pytest.raises(InvalidRequestError, match="no picture was given"):
        expand([])


def test_the_suffixes_are_those_that_can_be_read() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".gif", ".bmp"} <= image_suffixes()
    assert image_suffixes().isdisjoint({".pdf", ".eps", ".ps", ".mpg", ".h5", ".txt"})

"""Expansion of files, folders, globs and URLs to a list of pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from s3seg import images
from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.images.sources import expand, image_suffixes, pictures_below


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
    assert _names(["**/*.webp"]) == _names(["**/summer/*"]) == _names(["*/**/c.*"]) == ["c.webp"]
    assert _names(["photos/**/a.*"]) == _names(["photos/**/**/a.jpg"]) == ["a.jpg"]
    assert _names([f"{photos}/**"]) == ["a.jpg", "b.PNG", "c.webp"]


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


def _link(target: Path, link: Path) -> None:
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system does not allow links")


def test_two_links_to_one_file_are_two_pictures(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "3fa9c0d1e2").touch()
    (tmp_path / "in").mkdir()
    for name in ("frame_1.png", "frame_2.png"):
        _link(tmp_path / "store" / "3fa9c0d1e2", tmp_path / "in" / name)
    assert _names([tmp_path / "in"]) == ["frame_1.png", "frame_2.png"]
    assert _names([tmp_path / "in" / "*.png"]) == ["frame_1.png", "frame_2.png"]


def test_linked_folders_are_searched(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    _link(photos, tmp_path / "tree" / "sub")
    _link(photos / "summer", tmp_path / "tree" / "again")
    expected = [Path("tree") / path for path in ("again/c.webp", "sub/a.jpg", "sub/b.PNG", "sub/summer/c.webp")]
    assert expand(["tree"], recursive=True) == expected
    assert expand(["tree/**/*"]) == expected
    assert _names(["tree/sub"]) == ["a.jpg", "b.PNG"]


def test_links_that_lead_in_a_circle_end(photos: Path, tmp_path: Path) -> None:
    _link(photos, photos / "itself")
    _link(tmp_path, photos / "summer" / "above")
    (tmp_path / "other").mkdir()
    _link(photos, tmp_path / "other" / "back")
    _link(tmp_path / "other", photos / "summer" / "away")
    assert _names(["photos"], recursive=True) == ["a.jpg", "b.PNG", "c.webp"]
    assert sorted(set(_names(["photos/**/*"]))) == ["a.jpg", "b.PNG", "c.webp"]
    assert len(_names(["photos/**/*"])) == 3


def test_a_broken_link_is_listed_and_reported_when_it_is_opened(tmp_path: Path) -> None:
    _link(tmp_path / "gone.png", tmp_path / "a.png")
    assert _names([tmp_path]) == ["a.png"]
    with pytest.raises(ImageDecodeError, match=r"a\.png: there is no such file"):
        images.load(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "a.heif", "a.hif", "a.avif", "a.jxl", "a.CR2", "a.dng"])
def test_pictures_that_need_more_software_are_listed_and_not_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert _names([tmp_path]) == [name]
    assert _names([tmp_path / "*"]) == [name]


def test_a_heic_file_of_a_folder_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)  # imageio registers it with Pillow, where it is imported
    (tmp_path / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x1cftypheic")
    (path,) = expand([tmp_path])
    with pytest.raises(ImageDecodeError, match=r"IMG_0001\.HEIC: .*HEIC picture, which needs pillow-heif"):
        images.load(path)


def test_a_raw_picture_beside_a_developed_one_is_left_out(tmp_path: Path) -> None:
    for name in ("a.CR2", "a.JPG", "b.NEF", "c.ARW", "c.heic"):
        (tmp_path / name).touch()
    assert _names([tmp_path]) == ["a.JPG", "b.NEF", "c.heic"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(InvalidRequestError, match="cannot read the folder"):
        expand([tmp_path / "secret"])


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


def test_pictures_below_are_those_that_expand_finds_folder_by_folder(tmp_path):
    for name in ("b.png", "a.jpg", "x/c.png", "x/raw.cr2", "x/raw.jpg", ".h/d.png", "w/e.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [*pictures_below(tmp_path)]
    assert set(found) == set(expand([tmp_path], recursive=True))
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["a.jpg", "b.png", "w/e.tif", "x/c.png", "x/raw.jpg"]
    with pytest.raises(InvalidRequestError, match="cannot read the folder"):
        next(pictures_below(tmp_path / "none"))

"""Which pictures an agent may read."""

from __future__ import annotations

import base64

import pytest

from s3seg.errors import ConfigurationError, ImageDecodeError
from s3seg.integrations.picture_access import PictureAccess
from tests.helpers.pictures import encoded


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "allowed" / "deep").mkdir(parents=True)
    (tmp_path / "allowed" / "deep" / "red.png").write_bytes(encoded())
    (tmp_path / "allowed" / "notes.txt").write_text("not a picture")
    (tmp_path / "secret.png").write_bytes(encoded())
    return tmp_path / "allowed"


def test_pictures_below_a_folder_are_read_by_relative_and_by_full_path(folder):
    access = PictureAccess([folder])
    assert access.load("deep/red.png").size == (6, 8)
    assert access.load(str(folder / "deep" / "red.png")).size == (6, 8)


def test_links_and_parents_do_not_lead_out_of_the_folder(folder):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    access = PictureAccess([folder])
    for path in ("link.png", "up/secret.png", "../secret.png", str(folder.parent / "secret.png")):
        with pytest.raises(ImageDecodeError, match="is not a file below"):
            access.load(path)


def test_a_forbidden_file_and_a_missing_one_give_the_same_message(folder):
    access = PictureAccess([folder])
    messages = set()
    for name in ("../secret.png", "../absent.png", "a\0b", "deep"):
        with pytest.raises(ImageDecodeError) as caught:
            access.load(name)
        messages.add(str(caught.value).replace(repr(name), "NAME"))
    assert len(messages) == 1


def test_without_folders_no_file_is_read(folder):
    with pytest.raises(ImageDecodeError, match="there is none"):
        PictureAccess().load(str(folder / "deep" / "red.png"))


def test_a_data_url_is_always_allowed():
    url = "data:image/png;base64," + base64.b64encode(encoded()).decode()
    assert PictureAccess().load(url).size == (6, 8)


def test_http_urls_are_read_only_where_they_are_allowed():
    with pytest.raises(ImageDecodeError, match="URLs are not allowed"):
        PictureAccess().load("http://127.0.0.1:1/a.png")
    with pytest.raises(ImageDecodeError, match="download failed"):
        PictureAccess(urls=True).load("http://127.0.0.1:1/a.png")


def test_named_pipes_and_large_files_are_refused(folder, monkeypatch):
    import os

    os.mkfifo(folder / "pipe.png")
    with pytest.raises(ImageDecodeError, match="is not a file below"):
        PictureAccess([folder]).load("pipe.png")
    monkeypatch.setattr("s3seg.integrations.picture_access.MAX_BYTES", 20)
    with pytest.raises(ImageDecodeError, match="larger than"):
        PictureAccess([folder]).load("deep/red.png")


def test_pictures_are_listed_without_hidden_and_other_files_up_to_a_limit(folder):
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.png").write_bytes(encoded())
    (folder / "b.jpg").write_bytes(b"")
    access = PictureAccess([folder])
    assert access.names(limit=9) == [str(folder / "b.jpg"), str(folder / "deep" / "red.png")]
    assert access.names(limit=1) == [str(folder / "b.jpg")]


def test_a_picture_below_two_folders_is_listed_once(folder):
    assert PictureAccess([folder, folder / "deep"]).names(limit=9) == [str(folder / "deep" / "red.png")]


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="is not a folder"):
        PictureAccess([tmp_path / "absent"])

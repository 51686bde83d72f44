"""What an input names: folders, patterns and lists of addresses. Buckets are in `test_storage`."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from s3seg.bulk.listing import list_pictures, source_of
from s3seg.bulk.storage import S3Access, address_of, path_of, read_picture, shown
from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.images.sources import expand


def names(source) -> list[str]:
    return [one.uri for one in list_pictures(source_of(source), S3Access())]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in (
        "b.png",
        "a.jpg",
        "notes.md",
        ".hidden.png",
        "shot.cr2",
        "shot.jpg",
        "sub/c.PNG",
        ".git/d.png",
        "z/e.tif",
    ):
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "p"


def test_a_folder_gives_the_pictures_that_s3seg_segment_would_find(folder):
    assert set(names(folder)) == set(map(str, expand([folder], recursive=True)))
    assert names(folder) == [str(folder / name) for name in ("a.jpg", "b.png", "shot.jpg", "sub/c.PNG", "z/e.tif")]


def test_a_listed_file_has_its_size_and_time(folder):
    first, *_ = list_pictures(str(folder), S3Access())
    assert (first.size, first.modified_ns) == (5, (folder / "a.jpg").stat().st_mtime_ns)


def test_a_link_to_nothing_is_listed_and_told_when_it_is_read(folder):
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (gone,) = [one for one in list_pictures(source_of(folder), S3Access()) if "gone" in one.uri]
    assert (gone.uri, gone.size, gone.modified_ns) == (str(folder / "gone.png"), None, None)
    with pytest.raises(ImageDecodeError, match="there is no such file"):
        read_picture(gone.uri, S3Access())


def test_links_in_a_circle_end(folder):
    (folder / "sub" / "up").symlink_to(folder)
    assert len(names(folder)) == 5


def test_a_pattern_gives_what_matches_it(folder):
    assert names(folder / "**" / "*.PNG") == [str(folder / "sub" / "c.PNG")]
    with pytest.raises(InvalidRequestError, match="nothing matches"):
        names(folder / "*.webp")


def test_relative_paths_become_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert source_of("p") == str(folder)
    assert names("p")[0] == str(folder / "a.jpg")


def test_a_text_file_names_paths_and_addresses_one_on_each_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfa.png\r\n\n  s3://bucket/b c.png  \nhttps://example.org/d.png?x=1\n/e/f.png\nfile:///g/caf%E9.png"
    )
    assert names("list.txt") == [
        str(tmp_path / "a.png"),
        "s3://bucket/b c.png",
        "https://example.org/d.png?x=1",
        "/e/f.png",
        "file:///g/caf%E9.png",
    ]


@pytest.mark.parametrize("column", ["uri", "url", "path"])
def test_a_parquet_file_names_them_in_a_column(tmp_path, column):
    parquet.write_table(pa.table({"label": ["x", "y"], column: ["/a.png", "s3://b/c.png"]}), tmp_path / "l.parquet")
    assert names(tmp_path / "l.parquet") == ["/a.png", "s3://b/c.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"gs://bucket/a.png\n", "line 1: gs://bucket/a.png: give paths, s3:// addresses or http"),
        ("l.txt", b"a.png\ncaf\xe9.png\n", "line 2 is not UTF-8"),
        ("l.txt", b"a.png\nb\0.png\n", "line 2: .* is not the address of a picture"),
        ("l.txt", b"x" * 10_000, "is not the address of a picture"),
        ("l.parquet", b"no parquet", "not a Parquet file"),
    ],
)
def test_a_list_that_cannot_be_used_is_told_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message):
        names(tmp_path / name)


def test_a_parquet_file_without_addresses_is_told(tmp_path):
    parquet.write_table(pa.table({"label": ["x"]}), tmp_path / "l.parquet")
    with pytest.raises(InvalidRequestError, match="needs a column uri, url or path; this one has label"):
        names(tmp_path / "l.parquet")
    parquet.write_table(pa.table({"uri": [None, "/a"]}), tmp_path / "l.parquet")
    with pytest.raises(InvalidRequestError, match="row 1 of uri is not text"):
        names(tmp_path / "l.parquet")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/at/all", "no such file or folder"),
        ("/nowhere/list.txt", "no such file"),
        ("https://example.org/a.png", "a URL is one picture"),
    ],
)
def test_an_input_that_is_not_there_is_told(source, message):
    with pytest.raises(InvalidRequestError, match=message):
        names(source)


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_a_file_name_that_is_no_text_has_an_address_that_is(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %.png"))
    path.write_bytes(b"content")
    (address,) = names(tmp_path)
    address.encode()
    assert path_of(address) == path
    assert read_picture(address, S3Access()) == b"content"
    assert address_of(Path(address)) != address


def test_addresses_are_shown_without_passwords():
    assert shown("https://ann:secret@example.org/a.png#x") == "https://example.org/a.png"
    assert shown("s3://bucket/a#b.png") == "s3://bucket/a#b.png"

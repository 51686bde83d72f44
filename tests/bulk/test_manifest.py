"""The list of pictures that a run is about."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from s3seg.bulk import manifest
from s3seg.bulk.manifest import Listed
from s3seg.bulk.storage import Folder
from s3seg.errors import InvalidRequestError


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(manifest, "FILE_ROWS", 10)
    monkeypatch.setattr(manifest, "GROUP_ROWS", 4)


def listed(count):
    return [Listed(f"/p/{k}.png", k * 10, k or None) for k in range(count)]


def test_the_columns_are_these(tmp_path):
    out = Folder.at(tmp_path)
    totals = manifest.write([Listed("/a.png", 5, 7), Listed("https://example.org/b.png")], out, "key")
    assert (totals.rows, totals.bytes) == (2, 5)
    table = parquet.read_table(tmp_path / "manifest")
    assert table.schema.equals(
        pa.schema(
            [
                pa.field("id", pa.int64(), nullable=False),
                pa.field("uri", pa.string(), nullable=False),
                ("size", pa.int64()),
                ("modified_ns", pa.int64()),
            ]
        )
    )
    assert table.to_pylist() == [
        {"id": 0, "uri": "/a.png", "size": 5, "modified_ns": 7},
        {"id": 1, "uri": "https://example.org/b.png", "size": None, "modified_ns": None},
    ]


@pytest.mark.usefixtures("small_files")
@given(count=st.integers(0, 45), data=st.data())
def test_any_range_of_ids_gives_the_pictures_in_it(tmp_path_factory, count, data):
    out = Folder.at(tmp_path_factory.mktemp("out"))
    totals = manifest.write(iter(listed(count)), out, "key")
    assert totals.rows == count
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    assert manifest.read(out, start, stop, totals.digests) == [one.uri for one in listed(count)[start:stop]]


@pytest.mark.usefixtures("small_files")
def test_only_the_row_groups_of_a_range_are_read(tmp_path, monkeypatch):
    out, asked = Folder.at(tmp_path), []
    totals = manifest.write(listed(30), out, "key")
    read = parquet.ParquetFile.read_row_groups

    def read_and_note(self, groups, **options):
        asked.append(groups)
        return read(self, groups, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_groups", read_and_note)
    assert manifest.read(out, 17, 22, totals.digests) == [f"/p/{k}.png" for k in range(17, 22)]
    assert asked == [[1, 2], [0]]


@pytest.mark.usefixtures("small_files")
def test_pictures_are_listed_file_by_file(tmp_path):
    taken = []

    def pictures():
        for one in listed(25):
            taken.append(one)
            yield one
            on_disk = sum(parquet.read_metadata(file).num_rows for file in tmp_path.glob("manifest/*"))
            assert len(taken) - on_disk <= 11, "one file of 10, and the picture that shows that it is full"

    manifest.write(pictures(), Folder.at(tmp_path), "key")
    assert len([*tmp_path.glob("manifest/*")]) == 3


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(("count", "key"), [(25, "other"), (26, "key")])
def test_a_file_of_another_manifest_is_noticed(tmp_path, count, key):
    out = Folder.at(tmp_path)
    totals = manifest.write(listed(25), out, "key")
    manifest.write(listed(count), out, key)
    with pytest.raises(InvalidRequestError, match="another run was started"):
        manifest.read(out, 20, 25, totals.digests)

"""The files of results: their columns, and how damage is noticed."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from s3seg.bulk import results
from s3seg.bulk.results import Counts
from s3seg.bulk.storage import Folder

PIXEL = {"prompt": "cat", "score": 0.5, "box": [0.0, 0.0, 1.0, 1.0], "area": 1, "counts": "011"}
GOOD = {"sha256": "ab", "height": 1, "width": 2, "error": None, "instances": [PIXEL, PIXEL]}


@pytest.fixture
def out(tmp_path):
    return Folder.at(tmp_path)


def test_the_columns_are_these(out, tmp_path):
    results.write(out, 3, 10, ["/a", "/b"], [GOOD, results.error_row("/b: no")], fingerprint="f")
    table = parquet.read_table(tmp_path / "results" / "part-0000003.parquet")
    *columns, instances = table.schema
    assert {column.name: str(column.type) for column in columns} == {
        "id": "int64",
        "uri": "string",
        "sha256": "string",
        "height": "int32",
        "width": "int32",
        "error": "string",
    }
    assert instances.name == "instances"
    assert {field.name: field.type for field in instances.type.value_type} == {
        "prompt": pa.string(),
        "score": pa.float32(),
        "box": pa.list_(pa.float32(), 4),
        "area": pa.int64(),
        "counts": pa.string(),
    }
    assert table.to_pylist() == [
        {"id": 10, "uri": "/a", **GOOD},
        {"id": 11, "uri": "/b", "sha256": None, "height": None, "width": None, "error": "/b: no", "instances": []},
    ]


def test_a_file_is_the_same_whoever_writes_it_and_however_often(out, tmp_path):
    digests = set()
    for _ in range(2):
        results.write(out, 0, 0, ["/a"], [GOOD], fingerprint="f")
        digests.add(hashlib.sha256((tmp_path / results.part_name(0)).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["part-0000000.parquet"]


def test_a_whole_file_gives_its_counts(out):
    counts = results.write(out, 0, 5, ["/a", "/b"], [GOOD, results.error_row("no")], fingerprint="f")
    assert counts == Counts(rows=2, failed=1, instances=2) == results.check(out, 0, 5, 7, fingerprint="f")


@pytest.mark.parametrize(("start", "stop"), [(5, 8), (4, 7), (5, 6), (6, 8)])
def test_a_file_with_other_ids_than_those_of_its_shard_counts_as_missing(out, start, stop):
    results.write(out, 0, 5, ["/a", "/b"], [GOOD, GOOD], fingerprint="f")
    assert results.check(out, 0, start, stop, fingerprint="f") is None


def test_a_file_with_an_id_twice_counts_as_missing(out, tmp_path):
    results.write(out, 0, 0, ["/a", "/b"], [GOOD, GOOD], fingerprint="f")
    path = tmp_path / results.part_name(0)
    table = parquet.read_table(path)
    parquet.write_table(pa.concat_tables([table, table.slice(1)]), path)
    assert results.check(out, 0, 0, 2, fingerprint="f") is None
    parquet.write_table(pa.concat_tables([table.slice(1), table.slice(1)]), path)
    assert results.check(out, 0, 0, 2, fingerprint="f") is None


def test_a_file_of_other_columns_counts_as_missing(out, tmp_path):
    (tmp_path / "results").mkdir()
    parquet.write_table(pa.table({"id": [0, 1]}), tmp_path / results.part_name(0))
    assert results.check(out, 0, 0, 2, fingerprint="f") is None


@pytest.mark.parametrize("counts", [b"{}", b"[]", b"7"])
def test_a_file_that_does_not_say_what_it_holds_counts_as_missing(out, tmp_path, counts):
    results.write(out, 0, 0, ["/a"], [GOOD], fingerprint="f")
    path = tmp_path / results.part_name(0)
    parquet.write_table(
        parquet.read_table(path)
        .replace_schema_metadata({b"s3seg": counts})
        .cast(results.SCHEMA.with_metadata({b"s3seg": counts})),
        path,
    )
    assert results.check(out, 0, 0, 1, fingerprint="f") is None


def test_damage_is_never_an_error_of_the_audit(out, tmp_path):
    results.write(out, 0, 0, ["/a"] * 50, [GOOD] * 50, fingerprint="f")
    path = tmp_path / results.part_name(0)
    whole, draw = path.read_bytes(), random.Random(1)
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert results.check(out, 0, 0, 50, fingerprint="f") is None, f"cut to {length} bytes"
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        assert results.check(out, 0, 0, 50, fingerprint="f") in (None, Counts(50, 0, 100))
    path.unlink()
    assert results.check(out, 0, 0, 50, fingerprint="f") is None


def test_only_names_that_we_give_are_files_of_results():
    assert results.shard_of("part-0000012.parquet") == 12
    assert results.shard_of(Path(results.part_name(12_345_678)).name) == 12_345_678
    for name in ("part-12.parquet", "part-0000012.parquet.tmp", ".part-0000012.parquet.1f.tmp", "part--000001.parquet"):
        assert results.shard_of(name) is None


def test_an_error_with_bytes_that_are_no_text_can_be_stored(out):
    results.write(out, 0, 0, ["/a"], [results.error_row("caf\udce9.png: no such file")], fingerprint="f")
    assert results.read(out, 0)["error"].to_pylist() == ["caf\\udce9.png: no such file"]

"""The manifest of a run: its pictures, listed once and numbered from 0, in Parquet files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import parquet

from s3seg.bulk.storage import Folder

FOLDER = "manifest"
FILE_ROWS = 100_000
GROUP_ROWS = 1000
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("modified_ns", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture that was listed.

    Attributes:
        uri: Its path, ``s3://`` address or URL.
        size: In bytes, if the listing tells.
        modified_ns: Nanoseconds since 1970, if the listing tells.
    """

    uri: str
    size: int | None = None
    modified_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a manifest holds.

    Attributes:
        rows: Pictures.
        bytes: The sum of the sizes that are known.
    """

    rows: int
    bytes: int


def write(pictures: Iterable[Listed], out: Folder) -> Totals:
    """Write the manifest, file by file: only the rows of one file are in memory.

    Args:
        pictures: In order; they get the ids 0, 1, 2 ...
        out: The folder of the run.

    Raises:
        S3segError: The pictures cannot be listed, or the S3 server does not respond.
        OSError: A file cannot be written.
    """
    rows = total = 0
    iterator = iter(pictures)
    for number in itertools.count():
        some = list(itertools.islice(iterator, FILE_ROWS))
        if not some and number:
            break
        columns = {
            "id": range(rows, rows + len(some)),
            "uri": [one.uri for one in some],
            "size": [one.size for one in some],
            "modified_ns": [one.modified_ns for one in some],
        }
        content = io.BytesIO()
        table = pa.table(columns, schema=SCHEMA)
        parquet.write_table(table, content, row_group_size=GROUP_ROWS, compression="zstd")
        out.write(_name(number), content.getvalue())
        rows, total = rows + len(some), total + sum(one.size or 0 for one in some)
        if len(some) < FILE_ROWS:
            break
    return Totals(rows, total)


def read(out: Folder, start: int, stop: int) -> list[str]:
    """Return the addresses of the pictures with the ids ``start`` to ``stop``, exclusive.

    Only the row groups that hold them are read, whatever the size of the manifest.

    Raises:
        FileNotFoundError: A file of the manifest is missing.
        UnavailableError: The S3 server does not respond.
    """
    return [uri for uris in _pieces(out, start, stop) for uri in uris]


def _pieces(out: Folder, start: int, stop: int) -> Iterator[list[str]]:
    while start < stop:
        number, row = divmod(start, FILE_ROWS)
        end = min(stop - number * FILE_ROWS, FILE_ROWS)
        groups = range(row // GROUP_ROWS, (end - 1) // GROUP_ROWS + 1)
        with out.open(_name(number)) as file, parquet.ParquetFile(file) as content:
            column = content.read_row_groups([*groups], columns=["uri"], use_threads=False)["uri"]
        skipped = row - groups.start * GROUP_ROWS
        yield column.slice(skipped, end - row).to_pylist()
        start = number * FILE_ROWS + end


def _name(number: int) -> str:
    return f"{FOLDER}/part-{number:05d}.parquet"

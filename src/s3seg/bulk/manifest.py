"""The manifest of a run: its pictures, listed once and numbered from 0, in Parquet files."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import parquet

from s3seg.bulk.storage import Folder
from s3seg.errors import InvalidRequestError

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
_DIGEST = b"s3seg"


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
        digests: For each file, a SHA-256 of its addresses and of the request, in hexadecimal.
    """

    rows: int
    bytes: int
    digests: tuple[str, ...]


def write(pictures: Iterable[Listed], out: Folder, key: str) -> Totals:
    """Write the manifest, file by file: only the rows of one file are in memory.

    Args:
        pictures: In order; they get the ids 0, 1, 2 ...
        out: The folder of the run.
        key: Of the request; manifests of different requests have different digests.

    Raises:
        S3segError: The pictures cannot be listed, or the S3 server does not respond.
        OSError: A file cannot be written.
    """
    rows = total = 0
    digests: list[str] = []
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
        digests.append(_digest(key, columns["uri"]))
        table = pa.table(columns, schema=SCHEMA.with_metadata({_DIGEST: digests[-1].encode()}))
        parquet.write_table(table, content, row_group_size=GROUP_ROWS, compression="zstd")
        out.write(_name(number), content.getvalue())
        rows, total = rows + len(some), total + sum(one.size or 0 for one in some)
        if len(some) < FILE_ROWS:
            break
    return Totals(rows, total, tuple(digests))


def read(out: Folder, start: int, stop: int, digests: Sequence[str]) -> list[str]:
    """Return the addresses of the pictures with the ids ``start`` to ``stop``, exclusive.

    Only the row groups that hold them are read, whatever the size of the manifest.

    Args:
        out: The folder of the run.
        start: The first id.
        stop: The id after the last.
        digests: What `write` returned.

    Raises:
        InvalidRequestError: A file is of another manifest, since two runs were started in the folder at the same time.
        FileNotFoundError: A file of the manifest is missing.
        UnavailableError: The S3 server does not respond.
    """
    return [uri for uris in _pieces(out, start, stop, digests) for uri in uris]


def _pieces(out: Folder, start: int, stop: int, digests: Sequence[str]) -> Iterator[list[str]]:
    while start < stop:
        number, row = divmod(start, FILE_ROWS)
        end = min(stop - number * FILE_ROWS, FILE_ROWS)
        groups = range(row // GROUP_ROWS, (end - 1) // GROUP_ROWS + 1)
        with out.open(_name(number)) as file, parquet.ParquetFile(file) as content:
            if (content.schema_arrow.metadata or {}).get(_DIGEST) != digests[number].encode():
                raise InvalidRequestError(
                    f"{out.path(_name(number))}: this list is not that of the run, since another run was started in "
                    "the same folder at the same time; remove the folder, and start one of them again"
                )
            column = content.read_row_groups([*groups], columns=["uri"], use_threads=False)["uri"]
        skipped = row - groups.start * GROUP_ROWS
        yield column.slice(skipped, end - row).to_pylist()
        start = number * FILE_ROWS + end


def _digest(key: str, uris: Iterable[str]) -> str:
    digest = hashlib.sha256(key.encode())
    for uri in uris:
        digest.update(b"\n" + uri.encode())
    return digest.hexdigest()


def _name(number: int) -> str:
    return f"{FOLDER}/part-{number:05d}.parquet"

"""The results of a run: Parquet files with a row for each picture, and what is in them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from s3seg.bulk.storage import Folder
from s3seg.results import masks
from s3seg.results.segmentation import Segmentation

FOLDER = "results"
INSTANCE = pa.struct(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("box", pa.list_(pa.float32(), 4), nullable=False),  # xyxy in pixels, as predicted by the network
        pa.field("area", pa.int64(), nullable=False),  # pixels of the mask
        pa.field("counts", pa.string(), nullable=False),  # COCO's compressed RLE; its size is [height, width]
    ]
)
PICTURE = pa.schema(
    [
        pa.field("sha256", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("instances", pa.list_(INSTANCE), nullable=False),
    ]
)
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("uri", pa.string(), nullable=False), *PICTURE])
_COUNTS = b"s3seg"

Row = dict[str, Any]
"""The values of `PICTURE` for one picture."""


def row(results: Sequence[Segmentation], sha256: str | None) -> Row:
    """Return the row of a picture that was segmented.

    Args:
        results: One for each prompt, at least one.
        sha256: Of the bytes that were decoded, in hexadecimal.
    """
    instances = [
        {"prompt": result.prompt, "score": score, "box": box, "area": masks.area(rle), "counts": rle.counts}
        for result in results
        for score, box, rle in zip(result.scores.tolist(), result.boxes.tolist(), result.rles, strict=True)
    ]
    height, width = results[0].size
    return {"sha256": sha256, "height": height, "width": width, "error": None, "instances": instances}


def error_row(message: str, sha256: str | None = None) -> Row:
    """Return the row of a picture that could not be segmented; the message says why."""
    text = message.encode("utf-8", "backslashreplace").decode()
    return {"sha256": sha256, "height": None, "width": None, "error": text, "instances": []}


@dataclass(frozen=True, slots=True)
class Counts:
    """What results hold.

    Attributes:
        rows: Pictures.
        failed: Those of them that have an error.
        instances: Instances, of all prompts and pictures.
    """

    rows: int = 0
    failed: int = 0
    instances: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.failed + other.failed, self.instances + other.instances)


def count(rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Count pictures, errors and instances."""
    failed = sum(one["error"] is not None for one in rows)
    return Counts(len(rows), failed, sum(len(one["instances"]) for one in rows))


def part_name(shard: int) -> str:
    """Return the name of the file with the results of a shard; it does not depend on who writes it, or how often."""
    return f"{FOLDER}/part-{shard:07d}.parquet"


def shard_of(file_name: str) -> int | None:
    """Return the shard of a file in the folder of results; None for any other file."""
    number = file_name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdecimal() and file_name == part_name(int(number)).partition("/")[2] else None


def write(out: Folder, shard: int, start: int, uris: Sequence[str], rows: Sequence[Row], *, fingerprint: str) -> Counts:
    """Write the results of a shard completely or not at all.

    Args:
        out: The folder of the run.
        shard: Its number.
        start: The id of its first picture.
        uris: Addresses, as they are shown.
        rows: The row of each picture, in the same order.
        fingerprint: Of the run.

    Raises:
        UnavailableError: The S3 server does not respond.
        OSError: The file cannot be written.
    """
    out.write(part_name(shard), encode(start, uris, rows, fingerprint=fingerprint))
    return count(rows)


def encode(start: int, uris: Sequence[str], rows: Sequence[Row], *, fingerprint: str) -> bytes:
    """Return the content of a file of results; the arguments are those of `write`."""
    counts = count(rows)
    values = [
        {"id": number, "uri": uri, **row} for number, (uri, row) in enumerate(zip(uris, rows, strict=True), start)
    ]
    about = json.dumps({"failed": counts.failed, "instances": counts.instances, "run": fingerprint}).encode()
    table = pa.Table.from_pylist(values, schema=SCHEMA.with_metadata({_COUNTS: about}))
    content = io.BytesIO()
    parquet.write_table(table, content, compression="zstd")
    return content.getvalue()


def check(out: Folder, shard: int, start: int, stop: int, *, fingerprint: str) -> Counts | None:
    """Read the ids of a shard's file, and return its counts if it has each id once and no other; else None.

    A file that another run has written, with another fingerprint, is None too.

    Raises:
        UnavailableError: The S3 server does not respond.
    """
    try:
        with out.open(part_name(shard)) as file, parquet.ParquetFile(file) as content:
            if not content.schema_arrow.equals(SCHEMA):
                return None
            ids = content.read(columns=["id"], use_threads=False)["id"].to_numpy()
            about = json.loads((content.schema_arrow.metadata or {})[_COUNTS])
        if about["run"] != fingerprint:
            return None
        counts = Counts(stop - start, about["failed"], about["instances"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # missing or damaged: it is made again
        return None
    return counts if np.array_equal(np.sort(ids), np.arange(start, stop)) else None


def read(out: Folder, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the results of a shard, or some of their columns.

    Raises:
        FileNotFoundError: The shard has none yet.
        UnavailableError: The S3 server does not respond.
    """
    with out.open(part_name(shard)) as file, parquet.ParquetFile(file) as content:
        return content.read(columns=None if columns is None else [*columns], use_threads=False)

"""The output folder of a run: its request and manifest, the results so far, and the proof that none is missing.

- ``run.json``: the request and its key, the numbers of pictures and of pictures a shard;
- ``manifest/part-00000.parquet`` ...: the pictures, listed once;
- ``results/part-0000000.parquet`` ...: a row for each picture of a shard;
- ``complete.json``: the counts, written when every picture was found to have one result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from s3seg import __version__
from s3seg.bulk import manifest, results
from s3seg.bulk.manifest import Listed
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.results import Counts
from s3seg.bulk.storage import Folder
from s3seg.errors import InvalidRequestError, NotFoundError, S3segError
from s3seg.inference.prompts import checked_positive

FORMAT = "s3seg.bulk/1"
RUN, COMPLETE = "run.json", "complete.json"
_SHARDS, _SMALLEST, _LARGEST = 64, 8, 256
_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run: what it looks for, in which pictures, and where.

    Attributes:
        out: Its folder.
        source: Its input.
        request: What it looks for.
        rows: The number of its pictures.
        bytes: The sum of their sizes, as far as these are known.
        shard_rows: Pictures of a shard; a shard is the unit of work, and has a file of results.
        digests: Those of the manifest.
    """

    out: Folder
    source: str
    request: BulkRequest
    rows: int
    bytes: int
    shard_rows: int
    digests: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of request, pictures and shards; the results of runs that differ in one of them have another."""
        return hashlib.sha256(" ".join([str(self.shard_rows), *self.digests]).encode()).hexdigest()

    @property
    def shards(self) -> int:
        """The number of shards; the last may have fewer pictures."""
        return -(-self.rows // self.shard_rows)

    def ids(self, shard: int) -> range:
        """The ids of the pictures of a shard."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))

    def uris(self, shard: int) -> list[str]:
        """The addresses of the pictures of a shard, from the manifest."""
        ids = self.ids(shard)
        return manifest.read(self.out, ids.start, ids.stop, self.digests)

    def missing(self) -> list[int]:
        """Return the shards that have no file of results. This only lists the folder; `audit` reads the files."""
        present = self._present()
        return [shard for shard in range(self.shards) if shard not in present]

    def audit(self) -> Audit:
        """Compare the ids of the manifest with those of the results, in both directions.

        Files of results that are damaged, lack a picture, have one twice, or are of another run count as missing.

        Raises:
            S3segError: The S3 server does not respond.
        """
        present = self._present()
        counts = Counts()
        bad: list[int] = []
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3seg-audit") as pool:
            for some in _pieces(sorted(present & set(range(self.shards))), 1024):
                for shard, found in zip(some, pool.map(self._check, some), strict=True):
                    if found is None:
                        bad.append(shard)
                    else:
                        counts += found
        return Audit(
            missing=sorted(set(range(self.shards)) - present | set(bad)),
            unknown=sorted(present - set(range(self.shards))),
            counts=counts,
        )

    def finish(self, audit: Audit) -> None:
        """Record that the run is complete.

        Raises:
            S3segError: The audit found a picture without a result, or a result without a picture; or another run was
                started in the same folder at the same time, and has taken it over.
        """
        if audit.missing or audit.unknown or audit.counts.rows != self.rows:
            raise S3segError(f"{self.out.address}: the run is not complete: {audit}")
        found = _find(self.out)
        if found is None or _run(found, self.out).fingerprint != self.fingerprint:
            raise S3segError(
                f"{self.out.address}: another run was started in this folder at the same time, and has replaced this "
                "one; start this one again with another output"
            )
        self.out.write(COMPLETE, _json({"format": FORMAT, "run": self.fingerprint, **asdict(audit.counts)}))

    def completed(self) -> Counts | None:
        """Return the counts if the run is complete and every file of results is still there, else None."""
        content = self.out.read(COMPLETE)
        if content is None or self.missing():
            return None
        values = _values(content, COMPLETE, self.out)
        if values.get("run") != self.fingerprint:
            return None
        return Counts(values["rows"], values["failed"], values["instances"])

    def _present(self) -> set[int]:
        names = self.out.sizes(results.FOLDER)
        return {shard for name in names if (shard := results.shard_of(name)) is not None}

    def _check(self, shard: int) -> Counts | None:
        ids = self.ids(shard)
        return results.check(self.out, shard, ids.start, ids.stop, fingerprint=self.fingerprint)


@dataclass(frozen=True, slots=True)
class Audit:
    """The comparison of a manifest with its results.

    Attributes:
        missing: Shards in which a picture has no result, or more than one.
        unknown: Files of results whose pictures are not in the manifest.
        counts: What the other shards hold.
    """

    missing: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


def start(
    out: Folder,
    source: str,
    request: BulkRequest,
    *,
    pictures: Callable[[], Iterable[Listed]],
    shard_rows: int | None = None,
    on_listing: Callable[[int], None] = lambda rows: None,
) -> Run:
    """Return the run in a folder, after starting it if there is none: listing its pictures, once and for all.

    Args:
        out: Its folder.
        source: Its input.
        request: What it looks for.
        pictures: Called to list the pictures.
        shard_rows: Pictures of a shard; None for a 64th of all, 8 to 256.
        on_listing: Called with the number of pictures listed so far, now and then.

    Raises:
        InvalidRequestError: The folder holds a run of another request or input, there is no picture, or ``shard_rows``
            is not a whole number, 1 or more.
        S3segError: The pictures cannot be listed, or the S3 server does not respond.
        OSError: The folder cannot be written.
    """
    if shard_rows is not None:
        shard_rows = checked_positive("shard_rows", shard_rows)
    key = request.key(source)
    found = _find(out)
    if found is not None:
        if found["key"] != key:
            raise InvalidRequestError(
                f"{out.address} holds a run of another request: {_differences(found, request, source)}; "
                "choose another output, or remove this one"
            )
        if shard_rows is not None and shard_rows != found["shard_rows"]:
            raise InvalidRequestError(
                f"{out.address} holds a run with {found['shard_rows']} pictures a shard, and this cannot be changed "
                f"to {shard_rows}; leave the option out, or choose another output"
            )
        return _run(found, out)
    if strangers := [name for name in out.sizes(results.FOLDER) if results.shard_of(name) is not None]:
        raise InvalidRequestError(
            f"{out.address} has {len(strangers)} files of results, but no {RUN} that says of what; "
            "choose another output"
        )
    totals = manifest.write(_counted(pictures(), on_listing), out, key)
    if not totals.rows:
        raise InvalidRequestError(f"{source}: there is no picture in it")
    run = Run(
        out=out,
        source=source,
        request=request,
        rows=totals.rows,
        bytes=totals.bytes,
        shard_rows=shard_rows or max(_SMALLEST, min(_LARGEST, totals.rows // _SHARDS)),
        digests=totals.digests,
    )
    numbers = {"rows": run.rows, "bytes": run.bytes, "shard_rows": run.shard_rows, "digests": run.digests}
    about = {"format": FORMAT, "version": __version__, "key": key, "input": source, **numbers}
    out.write(RUN, _json({**about, "request": request.to_dict()}))
    return run


def load(out: Folder) -> Run:
    """Return the run in a folder.

    Raises:
        NotFoundError: There is none.
        InvalidRequestError: Its file is damaged, or of another version.
    """
    found = _find(out)
    if found is None:
        raise NotFoundError(f"{out.address}: there is no bulk run here ({RUN} is missing)")
    return _run(found, out)


def _find(out: Folder) -> dict[str, Any] | None:
    content = out.read(RUN)
    return None if content is None else _values(content, RUN, out)


def _run(values: Mapping[str, Any], out: Folder) -> Run:
    try:
        return Run(
            out=out,
            source=values["input"],
            request=BulkRequest.from_dict(values["request"]),
            rows=values["rows"],
            bytes=values["bytes"],
            shard_rows=values["shard_rows"],
            digests=tuple(values["digests"]),
        )
    except (KeyError, TypeError) as err:
        raise InvalidRequestError(f"{out.path(RUN)}: this file is damaged: {err!r}") from err


def _values(content: bytes, name: str, out: Folder) -> dict[str, Any]:
    try:
        values = json.loads(content)
        if values["format"] == FORMAT:
            return values
    except (ValueError, TypeError, KeyError):
        pass
    raise InvalidRequestError(f"{out.path(name)}: this is not a file of a bulk run of this version of s3seg")


def _differences(found: Mapping[str, Any], request: BulkRequest, source: str) -> str:
    """Say what differs between a stored request and a new one."""
    old = {"input": found["input"], **found["request"]}
    new = {"input": source, **request.to_dict()}
    changed = [name for name in new if old.get(name) != new[name]]
    return ", ".join(f"{name} was {old.get(name)!r:.80}, not {new[name]!r:.80}" for name in changed)


def _counted(pictures: Iterable[Listed], on_listing: Callable[[int], None]) -> Iterator[Listed]:
    for number, one in enumerate(pictures, start=1):
        yield one
        if number % 10_000 == 0:
            on_listing(number)


def _pieces(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

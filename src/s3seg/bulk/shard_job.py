"""The work on one shard, which a worker process does: read the manifest, segment, write the file of results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from s3seg.bulk import results
from s3seg.bulk.picture_watch import PictureWatch
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.results import Counts, Row
from s3seg.bulk.run_folder import Run
from s3seg.bulk.segmenting import PictureFile, SegmentsMany, load_segmenter, segment_rows
from s3seg.bulk.storage import S3Access, shown
from s3seg.errors import (
    CheckpointError,
    ConfigurationError,
    ForbiddenError,
    InferenceError,
    InvalidRequestError,
    S3segError,
)

PICTURE_TIMEOUT_S = 600.0
"""Default limit of the time that a picture may take."""

_MOST_TIMEOUT_S = 86_400
_SAME_FOR_EVERY_SHARD = (InvalidRequestError, CheckpointError, ConfigurationError)
_OF_THE_PICTURE = (InferenceError, ForbiddenError)  # of a picture that was tried alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """What a worker process needs to know. It can be pickled.

    Attributes:
        run: The run.
        s3: How to read pictures in buckets.
        device: As for `Segmenter`.
        batch_size: As for `Segmenter.segment_many`.
        picture_timeout_s: Seconds without a finished picture after which a process ends itself; None for no limit.
        load: Loads the network; called once in each process.
    """

    run: Run
    s3: S3Access = field(default_factory=S3Access)
    device: str = "auto"
    batch_size: int | None = None
    picture_timeout_s: float | None = PICTURE_TIMEOUT_S
    load: Callable[[BulkRequest, str], SegmentsMany] = load_segmenter

    def __post_init__(self) -> None:
        limit = self.picture_timeout_s
        if limit is not None and not 0 < limit <= _MOST_TIMEOUT_S:
            raise InvalidRequestError(
                f"picture_timeout_s must be a number of seconds above 0, at most {_MOST_TIMEOUT_S}, or None for no "
                f"limit; got {limit!r}"
            )


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        shard: Its number.
        counts: What its file of results holds; nothing if it was not written.
        seconds: Time that the process spent on it.
        error: Why it was not written; None if it was.
        hopeless: Whether the error would be the same for every shard.
    """

    shard: int
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    error: str | None = None
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class AloneReport:
    """What became of a picture that was tried alone.

    Attributes:
        id: Its number in the manifest.
        row: Its row; None if its process died each time, or something else is wrong.
        error: What else is wrong.
    """

    id: int
    row: Row | None = None
    error: str | None = None


class ShardWorker:
    """Does the work of one process. The network is loaded with the first picture."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        self._loaded: SegmentsMany | None = None

    def shard(self, shard: int) -> ShardReport:
        """Segment the pictures of a shard, and write its file of results. What goes wrong is in the report."""
        start = time.perf_counter()
        run = self._job.run
        try:
            uris = run.uris(shard)
            rows = self._rows(uris)
            counts = results.write(
                run.out,
                shard,
                run.ids(shard).start,
                [shown(uri) for uri in uris],
                rows,
                fingerprint=run.fingerprint,
            )
        except Exception as err:
            self._loaded = None  # a network that failed may not recover; the next shard gets a fresh one
            hopeless = isinstance(err, _SAME_FOR_EVERY_SHARD)
            return ShardReport(shard, seconds=time.perf_counter() - start, error=_described(err), hopeless=hopeless)
        return ShardReport(shard, counts, time.perf_counter() - start)

    def alone(self, number: int, uri: str) -> AloneReport:
        """Segment one picture, and return its row. What goes wrong is in the report."""
        try:
            (row,) = self._rows([uri])
        except Exception as err:
            self._loaded = None
            if isinstance(err, S3segError | OSError) and not isinstance(err, _OF_THE_PICTURE):
                return AloneReport(number, error=_described(err))
            return AloneReport(number, results.error_row(_described(err)))
        return AloneReport(number, row)

    def _rows(self, uris: list[str]) -> list[Row]:
        job = self._job
        if self._loaded is None:
            self._loaded = job.load(job.run.request, job.device)
        pictures = [PictureFile(uri, job.s3) for uri in uris]
        with PictureWatch(job.picture_timeout_s) as watch:
            return segment_rows(
                self._loaded, pictures, job.run.request, batch_size=job.batch_size, on_picture=watch.restart
            )


def _described(err: Exception) -> str:
    return str(err) if isinstance(err, S3segError) else f"{type(err).__name__}: {err}"

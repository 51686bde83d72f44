"""A whole run: passes over the shards, then the pictures of those that failed, each alone, then the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from s3seg.bulk import results
from s3seg.bulk.results import Counts, Row
from s3seg.bulk.run_folder import Run
from s3seg.bulk.shard_job import AloneReport, ShardJob, ShardReport
from s3seg.bulk.storage import shown
from s3seg.errors import S3segError, UnavailableError

PASSES = 2
"""Passes over shards that failed with an error. One whose process died is not tried as a whole again."""


_FAILURES_IN_A_ROW = 16


def ended_its_process(timeout_s: float | None) -> str:
    """Return the error of a picture whose process ended each time that it was tried.

    Args:
        timeout_s: The limit of the time that a picture may take; None if there is none.
    """
    causes = "a crash, or too little memory"
    if timeout_s is not None:
        causes = f"a crash, too little memory, or more than {timeout_s:g} s for one picture"
    return f"its process ended each time that it was tried ({causes})"


class Engine(Protocol):
    """Runs the work of a job in processes, here or on a cluster."""

    def run(self, job: ShardJob, shards: Sequence[int]) -> Iterable[ShardReport]:
        """Do the work on shards, in any order, and report each that ended.

        A shard whose process died is tried again in another process, a few times. If these die too, there is no report.

        Raises:
            S3segError: The engine does not run.
        """
        ...

    def run_alone(self, job: ShardJob, pictures: Iterable[tuple[int, str]]) -> Iterable[AloneReport]:
        """Segment each picture, given by id and address, while its process has no other; report each, in any order.

        Pictures are taken one by one as there are processes for them. One whose process died is tried once more; if
        this dies too, its report has neither a row nor an error.

        Raises:
            S3segError: The engine does not run.
        """
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: The pictures of the run.
        counts: What this call has done so far.
        earlier: How many of the pictures earlier runs have done.
        note: What happens now, if it is not the usual.
    """

    rows: int
    counts: Counts
    earlier: int
    note: str = ""


OnProgress = Callable[[Progress], None]


def carry_out(job: ShardJob, engine: Callable[[], Engine], on_progress: OnProgress = lambda progress: None) -> Counts:
    """Bring a run to its end: every picture of the manifest has exactly one result, which is proved by reading them.

    Whatever is done stays done: after an error, or a kill, the same call continues.

    Args:
        job: The run, and how to do it.
        engine: Called for the engine when it is needed, which it is not if everything is done.
        on_progress: Called after each shard.

    Raises:
        UnavailableError: Some shards could not be done, and the message says why; others may be done.
        S3segError: The request cannot be used, which is found when a process loads the network; or the engine does
            not run.
    """
    run = job.run
    if (completed := run.completed()) is not None:
        return completed
    missing = run.missing()
    tracker = _Tracker(run, missing, on_progress)
    running = engine() if missing else None
    for _ in range(PASSES):
        if running and missing:
            missing = _pass(job, running, missing, tracker)
    tracker.say("checking that every picture has one result")
    audit = run.audit()
    if audit.missing:  # a process died, an error came again, or a file is damaged
        tracker.say(f"segmenting the pictures of {len(audit.missing)} shards one by one")
        _finish_alone(job, running or engine(), audit.missing, tracker)
        audit = run.audit()
    if audit.missing:
        raise UnavailableError(
            f"{len(audit.missing)} of {run.shards} shards are not done: "
            f"{tracker.last_error or 'their processes ended'}; the same command continues"
        )
    run.finish(audit)
    return audit.counts


def _pass(job: ShardJob, engine: Engine, shards: Sequence[int], tracker: _Tracker) -> list[int]:
    """Do the work on shards, and return those that reported an error."""
    failed: list[int] = []
    in_a_row = 0
    for report in engine.run(job, shards):
        if report.error is None:
            in_a_row = 0
            tracker.add(report.counts)
            continue
        failed.append(report.shard)
        in_a_row += 1
        tracker.last_error = report.error
        if report.hopeless:
            raise S3segError(report.error)
        if in_a_row >= _FAILURES_IN_A_ROW:
            raise UnavailableError(f"{in_a_row} shards failed in a row, the last with: {report.error}")
    return failed


def _finish_alone(job: ShardJob, engine: Engine, shards: Sequence[int], tracker: _Tracker) -> None:
    """Segment each picture of some shards alone, and write the results of each shard whose pictures have all ended.

    In memory are only the shards that the pictures in work belong to.
    """
    run = job.run
    waiting: dict[int, _Collected] = {}

    def pictures() -> Iterator[tuple[int, str]]:
        for shard in shards:
            waiting[shard] = _Collected(run.uris(shard))
            yield from zip(run.ids(shard), waiting[shard].uris, strict=True)

    for report in engine.run_alone(job, pictures()):
        shard = report.id // run.shard_rows
        collected, place = waiting[shard], report.id - run.ids(shard).start
        uri = shown(collected.uris[place])
        if report.error is not None:
            tracker.last_error = collected.error = report.error
        collected.rows[place] = report.row or results.error_row(f"{uri}: {ended_its_process(job.picture_timeout_s)}")
        if len(collected.rows) < len(collected.uris):
            continue
        del waiting[shard]
        if collected.error is None:
            uris = [shown(one) for one in collected.uris]
            rows = [collected.rows[k] for k in range(len(uris))]
            try:
                start = run.ids(shard).start
                tracker.add(results.write(run.out, shard, start, uris, rows, fingerprint=run.fingerprint))
            except (S3segError, OSError) as err:
                tracker.last_error = str(err)


@dataclass(slots=True)
class _Collected:
    """What is known of a shard whose pictures are tried alone: addresses, rows by place, and what else is wrong."""

    uris: list[str]
    rows: dict[int, Row] = field(default_factory=dict)
    error: str | None = None


class _Tracker:
    """Adds up what is done, and tells it."""

    def __init__(self, run: Run, missing: Sequence[int], on_progress: OnProgress) -> None:
        self._rows = run.rows
        self._earlier = run.rows - sum(len(run.ids(shard)) for shard in missing)
        self._counts = Counts()
        self._on_progress = on_progress
        self.last_error = ""
        self.say("")

    def add(self, counts: Counts) -> None:
        """Count the results of a shard."""
        self._counts += counts
        self.say("")

    def say(self, note: str) -> None:
        """Tell how far the run is."""
        self._on_progress(Progress(self._rows, self._counts, self._earlier, note))

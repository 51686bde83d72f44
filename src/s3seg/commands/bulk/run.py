"""One ``s3seg bulk``: list the pictures, run the job, show how far it is, print a table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3seg.commands.bulk.inputs import make_request, require, s3_access
from s3seg.commands.bulk.table import table
from s3seg.commands.errors import PARTIAL
from s3seg.commands.terminal import Terminal

if TYPE_CHECKING:
    from s3seg.bulk.job import OnProgress, Progress

_NOTE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Where the work is done.

    Attributes:
        address: Address of a Ray cluster; None for this machine.
        actors: Most processes; None for as many as there is room for.
        gpus: GPUs of a process; None to choose.
        shard_rows: Pictures of a shard; None to choose.
        picture_timeout_s: Seconds that a picture may take.
    """

    address: str | None
    actors: int | None
    gpus: float | None
    shard_rows: int | None
    picture_timeout_s: float


def run(
    source: str,
    out: str,
    *,
    prompts: Sequence[str] | None,
    prompt_file: str | None,
    options: Mapping[str, Any],
    device: str,
    batch_size: int | None,
    processes: Processes,
    quiet: bool,
) -> int:
    """Carry out a run, or continue it. Returns the exit code.

    Raises:
        S3segError: The request cannot be used, or some pictures could not be done.
        OSError: The output cannot be written.
    """
    require("pyarrow", "ray")
    from s3seg.bulk import run_folder
    from s3seg.bulk.job import Engine, carry_out
    from s3seg.bulk.listing import list_pictures, source_of
    from s3seg.bulk.shard_job import ShardJob
    from s3seg.bulk.storage import Folder

    terminal = Terminal(quiet=quiet)
    request, access, address = make_request(prompts, prompt_file, options), s3_access(), source_of(source)
    started = run_folder.start(
        Folder.at(out, access),
        address,
        request,
        pictures=lambda: list_pictures(address, access),
        shard_rows=processes.shard_rows,
        on_listing=lambda rows: terminal.note(f"{rows:,} pictures listed"),
    )
    job = ShardJob(
        run=started,
        s3=access,
        device=device,
        batch_size=batch_size,
        picture_timeout_s=processes.picture_timeout_s,
    )

    def engine() -> Engine:
        from s3seg.bulk.engine import EngineOptions, RayEngine

        terminal.note("starting Ray" if processes.address is None else f"connecting to Ray at {processes.address}")
        return RayEngine(
            job,
            EngineOptions(
                address=processes.address,
                actors=processes.actors,
                gpus=processes.gpus,
                on_warning=lambda line: terminal.warn(line),
            ),
        )

    start = time.monotonic()
    try:
        with _shown(terminal, started.rows) as on_progress:
            counts = carry_out(job, engine, on_progress)
    except KeyboardInterrupt:
        terminal.warn("what is done stays done; the same command continues", label="stopped")
        raise
    terminal.show(
        table(
            ("pictures", f"{counts.rows:,}, each with one result"),
            ("failed", f"{counts.failed:,}"),
            ("instances", f"{counts.instances:,}"),
            ("time", f"{time.monotonic() - start:,.1f} s"),
            ("results", started.out.path("results")),
        )
    )
    return PARTIAL if counts.failed else 0


@contextmanager
def _shown(terminal: Terminal, rows: int) -> Iterator[OnProgress]:
    """Show progress as a bar on a terminal, else as a line now and then."""
    start = time.monotonic()
    last = start

    with terminal.progress(max(rows, 2), "starting") as bar:

        def show(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            done = progress.earlier + progress.counts.rows
            line = f"{progress.counts.failed} failed · {progress.counts.rows / max(now - start, 1e-9):.1f}/s"
            if bar:
                description = progress.note or (line if progress.counts.rows else "starting")
                bar.update(bar.task_ids[0], completed=done, description=description)
            elif progress.note or now - last >= _NOTE_EVERY_S:
                last = now
                terminal.note(
                    progress.note or f"{done:,} of {rows:,} done · {line} · {_time_left(progress, now - start)}"
                )

        yield show


def _time_left(progress: Progress, seconds: float) -> str:
    if not progress.counts.rows:
        return "time left unknown"
    left = progress.rows - progress.earlier - progress.counts.rows
    minutes = left * seconds / progress.counts.rows / 60
    return f"{minutes:.0f} min left" if minutes < 120 else f"{minutes / 60:.1f} h left"

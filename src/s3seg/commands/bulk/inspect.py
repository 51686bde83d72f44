"""``s3seg bulk status``, ``coco`` and ``estimate``: what a run has done, or would take."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3seg.commands.bulk.inputs import make_request, require, s3_access
from s3seg.commands.bulk.table import table
from s3seg.commands.errors import PARTIAL
from s3seg.commands.terminal import Terminal

if TYPE_CHECKING:
    from s3seg.bulk.run_folder import Run


def show_status(out: str) -> int:
    """Print how far the run in a folder is. Returns the exit code.

    Raises:
        S3segError: There is no run, or it cannot be read.
    """
    run = _load(out)
    counts = run.completed()
    complete = counts is not None
    counts = counts or run.audit().counts
    Terminal().show(
        table(
            ("input", run.source),
            ("prompts", ", ".join(run.request.prompts)),
            ("done", f"{counts.rows:,} of {run.rows:,} pictures ({counts.rows / run.rows:.1%})"),
            ("failed", f"{counts.failed:,}"),
            ("instances", f"{counts.instances:,}"),
            ("state", "complete" if complete else "not complete: the command that started the run continues it"),
        )
    )
    return 0 if complete else PARTIAL


def write_coco(out: str) -> int:
    """Write the results in a folder to stdout as a COCO dataset. Returns the exit code.

    Raises:
        S3segError: There is no run, or it cannot be read.
    """
    run = _load(out)
    from s3seg.bulk.coco import coco_text

    for piece in coco_text(run):
        sys.stdout.write(piece)
    if run.completed() is None:
        Terminal().warn("the run is not complete, and the dataset lacks the pictures that are not done")
        return PARTIAL
    return 0


def show_estimate(
    source: str,
    *,
    prompts: Sequence[str] | None,
    prompt_file: str | None,
    options: Mapping[str, Any],
    device: str,
    batch_size: int | None,
) -> None:
    """Print what a run on an input would take.

    Raises:
        S3segError: The request cannot be used, or there is no picture.
    """
    require("pyarrow")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in a process of a run, which has a processor for itself
    from s3seg.bulk.estimate import estimate
    from s3seg.bulk.listing import list_pictures, source_of
    from s3seg.bulk.segmenting import load_segmenter

    request, access = make_request(prompts, prompt_file, options), s3_access()
    terminal = Terminal()
    with terminal.progress(1, "segmenting a sample"):
        found = estimate(
            list_pictures(source_of(source), access),
            request,
            lambda: load_segmenter(request, device),
            s3=access,
            batch_size=batch_size,
        )
    cores = os.cpu_count() or 1
    rate = found.sampled / found.seconds
    terminal.show(
        table(
            ("pictures", f"{found.pictures:,}" + (f", {_size(found.bytes)}" if found.bytes else "")),
            ("sample", f"{found.sampled} pictures, {found.failed} of them cannot be read"),
            ("rate", f"{rate:.2f} pictures a second in one process"),
            ("time", f"{found.process_hours:.2f} h with one process, {found.process_hours / cores:.2f} h with {cores}"),
            ("memory", "unknown" if found.memory is None else f"{_size(found.memory)} for each process"),
            ("output", _size(found.output_bytes)),
        )
    )


def _load(out: str) -> Run:
    require("pyarrow")
    from s3seg.bulk import run_folder
    from s3seg.bulk.storage import Folder

    return run_folder.load(Folder.at(out, s3_access()))


def _size(number: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"

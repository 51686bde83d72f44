"""`bulk`: many pictures, in a program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s3seg.bulk import run_folder
from s3seg.bulk.job import OnProgress, carry_out
from s3seg.bulk.listing import list_pictures, source_of
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.shard_job import PICTURE_TIMEOUT_S, ShardJob
from s3seg.bulk.storage import Folder, S3Access

if TYPE_CHECKING:
    from s3seg.bulk.engine import Dataset  # pyright: ignore[reportAttributeAccessIssue]


def bulk(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    prompts: str | Sequence[str],
    *,
    threshold: float | None = None,
    max_instances: int | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    image_size: int | None = None,
    batch_size: int | None = None,
    shard_rows: int | None = None,
    picture_timeout_s: float | None = PICTURE_TIMEOUT_S,
    ray_address: str | None = None,
    actors: int | None = None,
    gpus: float | None = None,
    s3: S3Access | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> Dataset:
    """Segment many pictures, and return the results: one row for each picture, whatever died meanwhile.

    A picture that cannot be read, or whose process ends each time, has a row with its error. The same call on the same
    output continues where an earlier one was stopped, and returns at once if everything is done.

    Args:
        source: A folder, a pattern, a text or Parquet file of addresses, or ``s3://bucket/prefix``. It is listed
            once, when the run is started.
        out: A folder of this machine that every process can write, or ``s3://bucket/prefix``.
        prompts: What to look for in each picture.
        threshold: As for `Segmenter.segment_many`.
        max_instances: As for `Segmenter.segment_many`.
        checkpoint: As for `Segmenter`; every machine needs it.
        device: As for `Segmenter`.
        dtype: As for `Segmenter`.
        image_size: As for `Segmenter`.
        batch_size: As for `Segmenter.segment_many`.
        shard_rows: Pictures of a shard, the unit of work; None for a 64th of all, 8 to 256.
        picture_timeout_s: A process in which no picture is finished for so many seconds is ended; a picture for which
            this happens each time has a row with its error. None for no limit.
        ray_address: Address of a Ray cluster; None for this machine. A program that has called ``ray.init`` uses that.
        actors: Most processes; None for as many as there is room for.
        gpus: GPUs of a process, such as 0.5; None for 1 where there are GPUs.
        s3: How to reach S3; None takes AWS's environment variables.
        on_progress: Called after each shard.

    Returns:
        A ``ray.data.Dataset`` with the columns id, uri, sha256, height, width, error and instances.

    Raises:
        InvalidRequestError: An argument cannot be used, or the output holds a run of another request.
        UnavailableError: Some pictures could not be done; the same call continues.
        S3segError: The checkpoint is not on this machine, or Ray does not run.
    """
    from s3seg.bulk import engine

    request = BulkRequest.make(
        prompts,
        threshold=threshold,
        max_instances=max_instances,
        checkpoint=checkpoint,
        dtype=dtype,
        image_size=image_size,
    )
    access = s3 or S3Access()
    address = source_of(source)
    run = run_folder.start(
        Folder.at(out, access),
        address,
        request,
        pictures=lambda: list_pictures(address, access),
        shard_rows=shard_rows,
    )
    options = engine.EngineOptions(address=ray_address, actors=actors, gpus=gpus)
    job = ShardJob(run=run, s3=access, device=device, batch_size=batch_size, picture_timeout_s=picture_timeout_s)
    carry_out(job, lambda: engine.RayEngine(job, options), on_progress)
    engine.connect(ray_address)
    return engine.dataset(run)

"""A network and an engine without ray, which fail where a test says so."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3seg.bulk import run_folder
from s3seg.bulk.listing import list_pictures, source_of
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.run_folder import Run
from s3seg.bulk.segmenting import PictureFile
from s3seg.bulk.shard_job import AloneReport, ShardJob, ShardReport, ShardWorker
from s3seg.bulk.storage import Folder, S3Access
from s3seg.errors import ImageDecodeError, InferenceError, S3segError
from s3seg.results import masks
from s3seg.results.model_info import ModelInfo
from s3seg.results.segmentation import Segmentation

POISON, CORRUPT, BREAKS, HANGS = b"poison", b"corrupt", b"breaks the network", b"hangs"
MODEL = ModelInfo("pretend", "1", "cpu", "float32", None)


class ProcessEndedError(BaseException):
    """In the place of a process that ends: nothing of the product catches it."""


class PretendNetwork:
    """Finds one pixel of each prompt on each picture, whose content decides what goes wrong.

    Attributes:
        read: The names of the pictures that were read, in order.
    """

    def __init__(self, on_poison: Callable[[], object] | None = None) -> None:
        self.read: list[str] = []
        self._on_poison = on_poison

    def segment_many(
        self,
        sources: Iterable[PictureFile],
        prompt: Sequence[str],
        *,
        threshold: float | None,
        max_instances: int | None,
        batch_size: int | None,
        on_error: Callable[[PictureFile, S3segError], None],
    ) -> Iterator[tuple[PictureFile, list[Segmentation]]]:
        for picture in sources:
            try:
                content = picture.read_bytes()
                self.read.append(Path(str(picture)).name)
                if content == POISON:
                    self._die()
                if content == HANGS:
                    time.sleep(3600)
                if content == CORRUPT:
                    raise ImageDecodeError(f"{picture}: this is no picture")
                if content == BREAKS:
                    raise InferenceError(f"{picture}: the network failed")
            except S3segError as err:
                on_error(picture, err)
            else:
                yield picture, [_found(one) for one in prompt]

    def _die(self) -> None:
        if self._on_poison is not None:
            self._on_poison()
        raise ProcessEndedError


def _found(prompt: str) -> Segmentation:
    mask = np.zeros((2, 3), bool)
    mask[0, 1] = True
    return Segmentation(
        prompt=prompt,
        size=(2, 3),
        rles=(masks.encode(mask),),
        boxes=np.array([[1.0, 0.0, 2.0, 1.0]]),
        scores=np.array([0.5]),
        presence=0.5,
        threshold=0.3,
        model=MODEL,
        timings={},
        notes=(),
        source=None,
        image_id=None,
    )


class PretendEngine:
    """Runs a job in this process; a `ProcessEndedError` ends the process of a shard, which is tried three times.

    Args:
        stop_after: Raise KeyboardInterrupt after so many reports, as Ctrl-C or a killed driver would end the run.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.shards: list[int] = []
        self.alone: list[int] = []

    def run(self, job: ShardJob, shards: Sequence[int]) -> Iterator[ShardReport]:
        for shard in shards:
            if self.stop_after == len(self.shards):
                raise KeyboardInterrupt
            self.shards.append(shard)
            for _ in range(3):
                try:
                    report = ShardWorker(job).shard(shard)
                except ProcessEndedError:
                    continue
                yield report
                break

    def run_alone(self, job: ShardJob, pictures: Iterable[tuple[int, str]]) -> Iterator[AloneReport]:
        together = iter(pictures)
        while some := [*itertools.islice(together, 3)]:  # three processes, of which the last is the first to end
            for number, uri in reversed(some):
                yield self._alone(job, number, uri)

    def _alone(self, job: ShardJob, number: int, uri: str) -> AloneReport:
        self.alone.append(number)
        for _ in range(2):
            with contextlib.suppress(ProcessEndedError):
                return ShardWorker(job).alone(number, uri)
        return AloneReport(number)


def make_pictures(folder: Path, count: int, contents: dict[int, bytes] | None = None) -> Path:
    """Write files that have the names of pictures."""
    folder.mkdir(exist_ok=True)
    for k in range(count):
        (folder / f"{k:03d}.png").write_bytes((contents or {}).get(k, b"picture %d" % k))
    return folder


def request_for(*prompts: str, **options: Any) -> BulkRequest:
    return BulkRequest.make(prompts or ("cat", "dog"), checkpoint="embedded", **options)


def start_run(
    pictures: Path, out: Folder | Path, request: BulkRequest | None = None, *, shard_rows: int | None = 4
) -> Run:
    """Start or continue a run on a folder of pictures."""
    source = source_of(pictures)
    folder = out if isinstance(out, Folder) else Folder.at(out)
    return run_folder.start(
        folder,
        source,
        request or request_for(),
        pictures=lambda: list_pictures(source, S3Access()),
        shard_rows=shard_rows,
    )


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Every row of the results of a run, in the order of its files."""
    from s3seg.bulk import results

    shards = [shard for shard in range(run.shards) if shard not in run.missing()]
    return [row for shard in shards for row in results.read(run.out, shard).to_pylist()]


def names_of(run: Run) -> list[str]:
    return [os.path.basename(row["uri"]) for row in rows_of(run)]  # noqa: PTH119

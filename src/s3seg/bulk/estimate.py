"""What a run will take, from a sample of its pictures that is segmented in this process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from s3seg.bulk import results
from s3seg.bulk.manifest import Listed
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.segmenting import PictureFile, SegmentsMany, segment_rows
from s3seg.bulk.storage import S3Access, shown
from s3seg.errors import InvalidRequestError

SAMPLE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a sample took, and what all pictures will take at this rate.

    Attributes:
        pictures: Pictures of the input.
        bytes: Their sizes, as far as the listing tells.
        sampled: Pictures of the sample.
        failed: Those of them that cannot be read.
        seconds: What the sample took in one process, without loading the checkpoint.
        memory: Most memory of the process so far, in bytes; None where the system does not tell.
        output: Size of the sample's results in bytes.
    """

    pictures: int
    bytes: int
    sampled: int
    failed: int
    seconds: float
    memory: int | None
    output: int

    @property
    def process_hours(self) -> float:
        """Hours of one process for all pictures; divide by the number of processes."""
        return self.seconds / self.sampled * self.pictures / 3600

    @property
    def output_bytes(self) -> float:
        """The size of all results."""
        return self.output / self.sampled * self.pictures


def estimate(
    pictures: Iterable[Listed],
    request: BulkRequest,
    load: Callable[[], SegmentsMany],
    *,
    s3: S3Access,
    batch_size: int | None = None,
    sample: int = SAMPLE,
) -> Estimate:
    """Segment a sample, drawn evenly from all pictures, and return what it took.

    Args:
        pictures: All pictures; they are listed once, and only the sample is kept.
        request: What to look for.
        load: Loads the network.
        s3: How to read pictures in buckets.
        batch_size: As for `Segmenter.segment_many`.
        sample: Size of the sample.

    Raises:
        InvalidRequestError: There is no picture.
        S3segError: Something is wrong that is not the fault of a picture.
    """
    chosen: list[Listed] = []
    count = size = 0
    draw = random.Random(0).randrange  # noqa: S311 - the same sample every time
    for one in pictures:  # reservoir sampling: each picture is in the sample with the same probability
        count, size = count + 1, size + (one.size or 0)
        if len(chosen) < sample:
            chosen.append(one)
        elif (place := draw(count)) < sample:
            chosen[place] = one
    if not count:
        raise InvalidRequestError("there is no picture in the input")
    segmenter = load()
    files = [PictureFile(one.uri, s3) for one in chosen]
    segment_rows(segmenter, files[:1], request, batch_size=batch_size)  # the first picture is slower than the others
    start = time.perf_counter()
    rows = segment_rows(segmenter, files, request, batch_size=batch_size)
    content = results.encode(0, [shown(one.uri) for one in chosen], rows, fingerprint="")
    seconds = time.perf_counter() - start
    return Estimate(
        pictures=count,
        bytes=size,
        sampled=len(chosen),
        failed=results.count(rows).failed,
        seconds=seconds,
        memory=_peak_memory(),
        output=len(content),
    )


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

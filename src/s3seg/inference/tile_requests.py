"""Look into the tiles of a picture for a service, whose network serves other requests meanwhile.

A picture with tiles is many encodings. Its tiles are put into the queue of the network one batch after another, the
next one when the last has been answered, so that whatever else arrives waits for one batch of them at most. The picture
is decoded anew for each group of tiles, so that no more than two groups are in memory, however large it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, TypeVar, cast

from s3seg.inference.network import ResizedImage
from s3seg.inference.network_queue import Job, Limits, NetworkQueue, Prediction
from s3seg.inference.tiling import TilePieces
from s3seg.results.windows import Window

if TYPE_CHECKING:
    from s3seg.sam3.predictor import Detections

MAX_INSTANCES = 4000
"""Instances of one prompt that a task with tiles keeps, the best; with 16 prompts they fit into a 16-bit label map."""

_GROUP_BYTES = 24 * 2**20  # less than an answer of a decoding process may have
_T = TypeVar("_T")

ReadTiles = Callable[[Sequence[Window]], Awaitable[list[ResizedImage]]]
"""Decodes the picture, and returns these windows of it, resized."""


async def detect_in_turns(
    digest: bytes,
    size: tuple[int, int],
    prompts: Sequence[str],
    tiles: Sequence[Window],
    *,
    read: ReadTiles,
    input_side: int,
    choose: Callable[[bytes], NetworkQueue],
    limits: Limits,
    cpu: Executor,
) -> TilePieces:
    """Look for prompts in the tiles of a picture.

    If the caller is cancelled, tiles that wait for the network are dropped.

    Args:
        digest: Of the picture.
        size: (height, width) of the picture.
        prompts: What to look for.
        tiles: As `s3seg.inference.tile_plan.plan_tiles` returns them; at least one.
        read: Reads tiles.
        input_side: Side of the network's input, which is the size of a tile in memory.
        choose: Returns the queue of a network, by the digest of what it will encode.
        limits: The size of batches.
        cpu: Threads for making masks.
    """
    loop = asyncio.get_running_loop()
    pieces = TilePieces(tiles, size, prompts=len(prompts), max_instances=MAX_INSTANCES)
    at_once = max(1, min(limits.pictures, limits.prompts // len(prompts)))
    adding: asyncio.Future[None] | None = None
    count = max(1, _GROUP_BYTES // (3 * input_side**2))
    async with contextlib.aclosing(_read_ahead(list(enumerate(tiles)), count, read)) as groups:
        async for group in groups:
            for batch in _parts(group, at_once):
                jobs = [
                    Job(_digest_of(digest, number), image, tuple(prompts), is_kept=False) for number, image in batch
                ]
                predictions = await choose(jobs[0].digest).predict(jobs)
                if adding is not None:
                    await adding
                adding = loop.run_in_executor(cpu, _add, pieces, [number for number, _ in batch], predictions)
    if adding is not None:
        await adding
    return pieces


def _digest_of(digest: bytes, tile: int) -> bytes:
    return hashlib.sha256(b"%b %d" % (digest, tile)).digest()


def _add(pieces: TilePieces, numbers: Sequence[int], predictions: Sequence[Prediction]) -> None:
    for number, prediction in zip(numbers, predictions, strict=True):
        pieces.milliseconds["image"] += prediction.image_s * 1000
        pieces.milliseconds["prompt"] += prediction.prompt_s * 1000 * len(prediction.detections)
        for prompt, detections in enumerate(prediction.detections):
            pieces.add(number, prompt, cast("Detections", detections))


async def _read_ahead(
    tiles: Sequence[tuple[int, Window]], count: int, read: ReadTiles
) -> AsyncGenerator[list[tuple[int, ResizedImage]], None]:
    """Yield groups of tiles with their numbers, and read the next group meanwhile."""

    def start(group: Sequence[tuple[int, Window]]) -> asyncio.Future[list[ResizedImage]]:
        return asyncio.ensure_future(read([window for _, window in group]))

    groups = list(_parts(tiles, count))
    reading = start(groups[0])
    try:
        for group, following in itertools.zip_longest(groups, groups[1:]):
            images = await reading
            if following is not None:
                reading = start(following)
            yield [(number, image) for (number, _), image in zip(group, images, strict=True)]
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _parts(items: Sequence[_T], count: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + count] for start in range(0, len(items), count))

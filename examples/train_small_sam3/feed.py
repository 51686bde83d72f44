"""Batches in the order of the steps, composed by as many processes as there are cores to spare.

A worker composes the scenes of whole batches, each from the run's seed and its step, so a run sees the same batches
however many workers there are. Each worker has at most `AHEAD` of them waiting. They travel as one block of memory: one
copy into shared memory, one into pinned memory, one to the device. There the views of them are made.

    python -m train_small_sam3.feed --size full --seconds 20 --workers 2     # how many scenes a second?
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from .batch import Batch, DrawnScenes
from .batches import BatchMaker, view_of
from .concepts import load_vocabulary
from .icons import load_atlas
from .settings import SIZES, Settings

AHEAD = 2
ALIGNED = 64
"""Each tensor of a packed batch begins at a multiple of as many bytes."""
STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Packed:
    """Drawn scenes in one block of memory."""

    block: Tensor | np.ndarray  # uint8 (bytes,); an array travels through a pipe, a tensor in shared memory
    places: tuple[tuple[str, torch.dtype, torch.Size, int], ...]
    """Name, type, shape and first byte of each tensor."""

    @classmethod
    def of(cls, scenes: DrawnScenes) -> Packed:
        """Copy the tensors into one block."""
        places, end = [], 0
        for field in fields(scenes):
            tensor = getattr(scenes, field.name)
            places.append((field.name, tensor.dtype, tensor.shape, end))
            end += -(-tensor.nbytes // ALIGNED) * ALIGNED
        packed = cls(torch.empty(end, dtype=torch.uint8), tuple(places))
        for name, view in packed._views(packed.block).items():
            view.copy_(getattr(scenes, name))
        return packed

    def for_a_pipe(self) -> Packed:
        """Return the same without any use of shared memory."""
        return replace(self, block=torch.as_tensor(self.block).numpy())

    def pin_memory(self) -> Packed:
        """Return a copy from which a GPU can fetch by itself; the data loader calls this."""
        return replace(self, block=torch.as_tensor(self.block).pin_memory())

    def on(self, device: torch.device) -> DrawnScenes:
        """Return the scenes on a device; the copy to a GPU may still be under way."""
        return DrawnScenes(**self._views(torch.as_tensor(self.block).to(device, non_blocking=True)))

    def _views(self, block: Tensor) -> dict[str, Tensor]:
        return {
            name: block[first : first + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for name, dtype, shape, first in self.places
        }


class RunScenes(torch.utils.data.Dataset):
    """The scenes of the run in a folder. It is opened where it is used: a worker is sent next to nothing.

    Attributes:
        run: Folder of the run.
        rank: Which of the processes that share each batch this is.
        processes: How many there are.
        piped: Send scenes through a pipe, for want of shared memory.
    """

    def __init__(self, run: Path, rank: int = 0, processes: int = 1, *, piped: bool = False) -> None:
        self.run, self.rank, self.processes, self.piped = run, rank, processes, piped
        self._maker: BatchMaker | None = None

    def __getitem__(self, item: int) -> Packed:
        """Return the scenes that some steps share."""
        if self._maker is None:
            vocabulary, tokenizer = load_vocabulary(), Tokenizer.from_file(str(self.run / "tokenizer.json"))
            self._maker = BatchMaker(
                Settings.load(self.run), vocabulary, load_atlas(vocabulary), tokenizer,
                rank=self.rank, processes=self.processes,
            )  # fmt: skip
        packed = Packed.of(self._maker.scenes(item))
        return packed.for_a_pipe() if self.piped else packed


@contextmanager
def feed(
    run: Path, steps: range, *, workers: int, device: torch.device, rank: int = 0, processes: int = 1
) -> Iterator[Iterator[Batch]]:  # fmt: skip
    """Yield an iterator over the batches of some steps, on a device; the workers end with the context.

    Args:
        run: Folder of the run.
        steps: Which steps.
        workers: Processes that compose scenes; 0 composes them in this process, when they are asked for.
        device: Where the batches go.
        rank: Which of the processes that share each batch this is.
        processes: How many there are.
    """
    settings = Settings.load(run)
    with scenes_of(run, steps, workers=workers, device=device, rank=rank, processes=processes) as scenes:
        yield _batches(scenes, steps, settings, first=rank * (settings.batch // processes))


def _batches(
    scenes: Iterator[tuple[int, DrawnScenes]], steps: range, settings: Settings, *, first: int
) -> Iterator[Batch]:  # fmt: skip
    for item, drawn in scenes:
        for view in range(settings.views):
            step = item * settings.views + view
            if step in steps:
                yield view_of(drawn, view, settings, step, first)


@contextmanager
def scenes_of(
    run: Path, steps: range, *, workers: int, device: torch.device, rank: int = 0, processes: int = 1
) -> Iterator[Iterator[tuple[int, DrawnScenes]]]:  # fmt: skip
    """Like `feed`, but yield the scenes that the steps see, each with its number."""
    settings = Settings.load(run)
    items = range(steps.start // settings.views, -(-steps.stop // settings.views))
    waiting = workers * (AHEAD + 1) * settings.batch * _scene_bytes(settings)
    loader = DataLoader(
        RunScenes(run, rank, processes, piped=_shared_memory() < 1.5 * waiting), batch_size=None, sampler=items,
        num_workers=workers, prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="spawn" if workers else None, pin_memory=device.type == "cuda",
        worker_init_fn=_alone,
    )  # fmt: skip
    if workers:
        load_atlas(load_vocabulary())  # unpacks the drawings if nobody has yet; the workers open what is there
    with _signals_ignored():  # workers inherit it: Ctrl-C reaches the whole group, and they are ended by this process
        packed = iter(loader)
    stream = ((item, part.on(device)) for item, part in zip(items, packed, strict=False))
    try:
        yield stream
    finally:
        stream.close()
        del packed  # nothing holds it now, and the workers end


def _scene_bytes(settings: Settings) -> int:
    """About how much a scene and its prompts take."""
    return 4 * settings.image_size**2 + 13_000 * 2 * settings.views


def _shared_memory() -> float:
    """Bytes of shared memory that are free; without limit where it is no file system."""
    place = Path("/dev/shm")  # noqa: S108 - only asked for its size
    return shutil.disk_usage(place).free if place.is_dir() else math.inf


def _alone(_: int) -> None:
    """Use one thread in a worker, and let one that has ended skip the destructors of libraries, of which some abort."""
    torch.set_num_threads(1)
    atexit.register(os._exit, 0)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Measure how many scenes a second the workers compose, when nothing else waits for them."""
    from .state import start

    parser = argparse.ArgumentParser(description="Measure how many scenes a second the workers compose.")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 composes in this one")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--views", type=int, default=1, help="of each scene, which are asked other things each")
    args = parser.parse_args()
    settings, vocabulary = replace(SIZES[args.size], views=args.views), load_vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        start(run, settings, vocabulary, load_atlas(vocabulary), None)
        with scenes_of(run, range(10**9), workers=args.workers, device=torch.device("cpu")) as scenes:
            for _ in range(max(1, args.workers)):  # each has opened its drawings
                _, drawn = next(scenes)
            began, used, count = time.monotonic(), time.process_time(), 0
            while time.monotonic() - began < args.seconds:
                next(scenes)
                count += settings.batch
            seconds, used = time.monotonic() - began, time.process_time() - used
    size = Packed.of(drawn).block.nbytes / 2**20
    print(f"{settings.batch} scenes take {size:.1f} MiB: {count / seconds:.1f} scenes/s of {args.workers} workers")
    if not args.workers:
        print(f"{count / used:.1f} scenes per second of CPU time: {1000 * used / count:.1f} ms each")


if __name__ == "__main__":
    main()

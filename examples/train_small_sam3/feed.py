"""Batches in the order of the steps, composed by as many processes as there are cores to spare.

A worker composes whole batches, each from the run's seed and its step, so that a run sees the same batches however many
workers there are. Each worker has at most `AHEAD` batches waiting. A batch travels as one block of memory: one copy
into shared memory, one into pinned memory, one to the device.

    python -m train_small_sam3.feed --size full --seconds 20 --workers 2     # how many scenes a second?
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from .batches import Batch, BatchMaker
from .concepts import load_vocabulary
from .icons import load_atlas
from .settings import SIZES, Settings

AHEAD = 2
ALIGNED = 64
"""Each tensor of a packed batch begins at a multiple of as many bytes."""
STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class PackedBatch:
    """A batch in one block of memory."""

    block: Tensor  # uint8 (bytes,)
    places: tuple[tuple[str, torch.dtype, torch.Size, int], ...]
    """Name, type, shape and first byte of each tensor."""

    @classmethod
    def of(cls, batch: Batch) -> PackedBatch:
        """Copy the tensors of a batch into one block."""
        places, end = [], 0
        for field in fields(batch):
            tensor = getattr(batch, field.name)
            places.append((field.name, tensor.dtype, tensor.shape, end))
            end += -(-tensor.nbytes // ALIGNED) * ALIGNED
        packed = cls(torch.empty(end, dtype=torch.uint8), tuple(places))
        for name, view in packed._views(packed.block).items():
            view.copy_(getattr(batch, name))
        return packed

    def pin_memory(self) -> PackedBatch:
        """Return a copy from which a GPU can fetch by itself; the data loader calls this."""
        return replace(self, block=self.block.pin_memory())

    def on(self, device: torch.device) -> Batch:
        """Return the batch on a device; the copy to a GPU may still be under way."""
        return Batch(**self._views(self.block.to(device, non_blocking=True)))

    def _views(self, block: Tensor) -> dict[str, Tensor]:
        return {
            name: block[first : first + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for name, dtype, shape, first in self.places
        }


class RunBatches(torch.utils.data.Dataset):
    """The batches of the run in a folder, by step. It is opened where it is used: a worker is sent next to nothing."""

    def __init__(self, run: Path, rank: int = 0, processes: int = 1) -> None:
        self.run, self.rank, self.processes = run, rank, processes
        self._maker: BatchMaker | None = None

    def __getitem__(self, step: int) -> PackedBatch:
        """Return the batch of a step."""
        if self._maker is None:
            vocabulary, tokenizer = load_vocabulary(), Tokenizer.from_file(str(self.run / "tokenizer.json"))
            self._maker = BatchMaker(
                Settings.load(self.run), vocabulary, load_atlas(vocabulary), tokenizer,
                rank=self.rank, processes=self.processes,
            )  # fmt: skip
        return PackedBatch.of(self._maker[step])


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
    loader = DataLoader(
        RunBatches(run, rank, processes), batch_size=None, sampler=steps, num_workers=workers,
        prefetch_factor=AHEAD if workers else None, multiprocessing_context="spawn" if workers else None,
        pin_memory=device.type == "cuda", worker_init_fn=_leave_at_once,
    )  # fmt: skip
    if workers:
        load_atlas(load_vocabulary())  # unpacks the drawings if nobody has yet; the workers open what is there
    with _signals_ignored():  # workers inherit it: Ctrl-C reaches the whole group, and they are ended by this process
        packed = iter(loader)
    stream = (batch.on(device) for batch in packed)
    try:
        yield stream
    finally:
        stream.close()
        del packed  # nothing holds it now, and the workers end


def _leave_at_once(_: int) -> None:
    """Let a worker that has ended skip the destructors of libraries: with threads of theirs running, some abort."""
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
    args = parser.parse_args()
    settings, vocabulary = SIZES[args.size], load_vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        start(run, settings, vocabulary, load_atlas(vocabulary), None)
        with feed(run, range(10**9), workers=args.workers, device=torch.device("cpu")) as batches:
            for _ in range(max(1, args.workers)):  # each has opened its drawings
                batch = next(batches)
            began, used, count = time.monotonic(), time.process_time(), 0
            while time.monotonic() - began < args.seconds:
                next(batches)
                count += settings.batch
            seconds, used = time.monotonic() - began, time.process_time() - used
    size = PackedBatch.of(batch).block.nbytes / 2**20
    print(f"batches of {settings.batch}, {size:.1f} MiB each: {count / seconds:.1f} scenes/s of {args.workers} workers")
    if not args.workers:
        print(f"{count / used:.1f} scenes per second of CPU time: {1000 * used / count:.1f} ms each")


if __name__ == "__main__":
    main()

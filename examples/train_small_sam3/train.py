"""Train for some minutes, from wherever the run stopped.

    python -m train_small_sam3.train --run DIR --minutes 60

A run is a folder. The first call makes it (`--grow-from` takes the weights of a smaller checkpoint along); later calls
go on, bit for bit as if there had been no pause.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from .batches import BatchMaker
from .concepts import load_vocabulary
from .icons import load_atlas
from .optimisers import set_rates
from .settings import SIZES, Settings
from .state import TrainingState, resume, start
from .step import losses, written_out_attention

LARGEST_GRADIENT = 2.0
LOG, LOG_EVERY = "log.jsonl", 25
STOPPING = (signal.SIGTERM, signal.SIGINT)


def train(
    run: Path, *, minutes: float, last_step: int | None = None, rank: int = 0, processes: int = 1,
    save_minutes: float = 5,
) -> int:  # fmt: skip
    """Make steps until the time is up, a signal comes, or the schedule is at its end; then save the state.

    Args:
        run: Folder of the run.
        minutes: How long.
        last_step: Stop before this step.
        rank: Which of the processes this is.
        processes: How many processes share each batch.
        save_minutes: Minutes between saves.

    Returns:
        How many steps the run has made in all.
    """
    vocabulary = load_vocabulary()
    state, settings, tokenizer = resume(run, vocabulary)
    maker = BatchMaker(settings, vocabulary, load_atlas(vocabulary), tokenizer, rank=rank, processes=processes)
    end = min(settings.steps, last_step if last_step is not None else settings.steps)
    loader = DataLoader(maker, batch_size=None, sampler=range(state.step, end), num_workers=1, prefetch_factor=4)
    log, saved = Log(run / LOG, settings), time.monotonic()
    deadline = saved + 60 * minutes
    with _signals() as interrupted, written_out_attention():
        for batch in loader:
            done = losses(state.model, state.heads, batch, dense_only=state.step < settings.dense_steps)
            enough = bool(interrupted) or time.monotonic() > deadline
            stop = _learn(state, settings, done.total, enough=enough, processes=processes)
            log.add(done.parts | {"loss": done.total.item()})
            if rank == 0 and (state.step % LOG_EVERY == 0 or stop or state.step == end):
                log.write(state.step)
            if rank == 0 and time.monotonic() - saved > 60 * save_minutes:
                state.save(run)
                saved = time.monotonic()
            if stop:
                break
    if rank == 0:
        state.save(run)
    return state.step


class Log:
    """Means of the losses over some steps, a line of JSON each time they are written."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self._reset()

    def add(self, parts: dict[str, float]) -> None:
        """Count a step."""
        self.count += 1
        for name, value in parts.items():
            self.sums[name] += value

    def write(self, step: int) -> None:
        """Write the means since the last line."""
        seconds = (time.monotonic() - self.began) / self.count
        line = {
            "step": step, "images": step * self.settings.batch, "rate": round(self.settings.rate(step), 4),
            "images_a_second": round(self.settings.batch / seconds, 2), "time": round(time.time()),
            **{name: round(total / self.count, 4) for name, total in self.sums.items()},
        }  # fmt: skip
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.count, self.began = 0, time.monotonic()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them: the step under way is finished, and the state saved."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _learn(state: TrainingState, settings: Settings, loss: Tensor, *, enough: bool, processes: int) -> bool:
    """Make one step; return whether some process has had enough."""
    set_rates(state.optimisers, settings, state.step)
    weights = [w for o in state.optimisers for group in o.param_groups for w in group["params"]]
    for weight in weights:
        weight.grad = None
    loss.backward()
    if processes > 1:
        enough = _share_gradients(weights, enough, processes)
    norm = torch.nn.utils.clip_grad_norm_([w for w in weights if w.grad is not None], LARGEST_GRADIENT)
    if torch.isfinite(norm):
        for optimiser in state.optimisers:
            optimiser.step()
    state.step += 1
    state.average_weights(settings.ema)
    return enough


def _share_gradients(weights: list[Tensor], enough: bool, processes: int) -> bool:
    """Average the gradients of all processes; return whether some process has had enough."""
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([float(enough)])])
    distributed.all_reduce(flat)
    for weight, part in zip(weights, flat[:-1].split([w.numel() for w in weights]), strict=True):
        weight.grad = (part / processes).view_as(weight)
    return bool(flat[-1] > 0)


def _worker(rank: int, run: Path, minutes: float, last_step: int | None, processes: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # of this process: whoever calls train() himself keeps his arithmetic
    meeting = run / f"meeting-{os.getppid()}"
    if processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    try:
        train(run, minutes=minutes, last_step=last_step, rank=rank, processes=processes)
    finally:
        if processes > 1:
            distributed.destroy_process_group()
            meeting.unlink(missing_ok=True)


def main() -> None:
    """Start a run, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--processes", type=int, default=1, help="they share each batch")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--size", choices=SIZES, default="full", help="of a new run")
    parser.add_argument("--steps", type=int, help="length of the schedule; may be changed later on")
    parser.add_argument("--grow-from", type=Path, help="checkpoint whose weights a new run starts from")
    parser.add_argument("--last-step", type=int, help="stop before this step")
    args = parser.parse_args()
    run = args.run.absolute()
    if not (run / "state.pt").exists():
        settings = SIZES[args.size]
        settings = replace(settings, steps=args.steps or settings.steps)
        vocabulary = load_vocabulary()
        start(run, settings, vocabulary, load_atlas(vocabulary), args.grow_from)
    elif args.steps:
        replace(Settings.load(run), steps=args.steps).save(run)
    parts = (run, args.minutes, args.last_step, args.processes, args.threads)
    if args.processes == 1:
        _worker(0, *parts)
    else:
        torch.multiprocessing.start_processes(_worker, parts, nprocs=args.processes, start_method="spawn")


if __name__ == "__main__":
    main()

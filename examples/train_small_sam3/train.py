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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from .batches import BatchMaker
from .concepts import load_vocabulary
from .icons import load_atlas
from .optimisers import set_rates
from .settings import SIZES, Settings
from .state import FILE as STATE
from .state import TrainingState, open_any, resume, start
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
    loader = DataLoader(
        maker, batch_size=None, sampler=range(state.step, end), num_workers=1, prefetch_factor=4,
        worker_init_fn=_ignore_signals,
    )  # fmt: skip
    log, saved = Log(run / LOG, settings), time.monotonic()
    deadline = saved + 60 * minutes
    with _signals() as interrupted, written_out_attention():
        for batch in loader:
            state.freeze_network(state.step < settings.warm_heads)
            dense_only = state.step < settings.dense_steps
            done = losses(state.model, state.heads, batch, dense_only=dense_only, precision=settings.precision)
            enough = bool(interrupted) or time.monotonic() > deadline
            stop = _learn(state, settings, done.total, enough=enough, processes=processes)
            log.add(done.parts | {"loss": done.total.detach()})
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

    def add(self, parts: dict[str, Tensor]) -> None:
        """Count a step."""
        self.count += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0) + value

    def write(self, step: int) -> None:
        """Write the means since the last line."""
        seconds = (time.monotonic() - self.began) / self.count
        line = {
            "step": step, "images": step * self.settings.batch, "rate": round(self.settings.rate(step), 4),
            "images_a_second": round(self.settings.batch / seconds, 2), "time": round(time.time()),
            **{name: round(float(total) / self.count, 4) for name, total in self.sums.items()},
        }  # fmt: skip
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor | int] = {}
        self.count, self.began = 0, time.monotonic()


def _ignore_signals(_: int) -> None:
    """Let a worker of the data loader live until the training process ends it: Ctrl-C reaches the whole group."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


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
    learning = [w for w in weights if w.requires_grad]
    for weight in weights:
        weight.grad = None
    loss.backward()
    if processes > 1:
        enough = _share_gradients(learning, enough, processes)
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


def launch(
    run: Path, *, minutes: float, last_step: int | None = None, processes: int = 1, threads: int = 1
) -> None:  # fmt: skip
    """Train in this process, or in several further ones; a signal to this one is passed on to them."""
    if processes == 1:
        train(run, minutes=minutes, last_step=last_step)
        return
    parts = (run, minutes, last_step, processes, threads)
    workers = torch.multiprocessing.start_processes(_worker, parts, nprocs=processes, start_method="spawn", join=False)
    with _signals() as received:
        while not workers.join(timeout=1):
            while received:
                number = received.pop()
                for pid in workers.pids():
                    os.kill(pid, number)


def begin_cool_down(run: Path, *, minutes: float) -> Settings:
    """Plan that the learning rate falls to zero over some minutes from here, at the speed of the run's last steps.

    The plan is steps, written into the run's settings: what follows can be interrupted and resumed as before.
    """
    settings, step = Settings.load(run), steps_made(run)
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()[-20:]]
    speed = sum(line["images_a_second"] for line in lines) / len(lines)
    settings = settings.cool_down(step, max(1, round(60 * minutes * speed / settings.batch)))
    settings.save(run)
    return settings


def steps_made(run: Path) -> int:
    """Return how many steps a run has made, as it was last saved."""
    return torch.load(run / STATE, weights_only=True, mmap=True)["step"]


def _worker(rank: int, run: Path, minutes: float, last_step: int | None, processes: int, threads: int) -> None:
    _as_fast_as_possible(threads)
    meeting = run / f"meeting-{os.getppid()}"
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes,
        timeout=timedelta(days=365),  # a run may be paused by SIGSTOP for hours
    )  # fmt: skip
    try:
        train(run, minutes=minutes, last_step=last_step, rank=rank, processes=processes)
    finally:
        distributed.destroy_process_group()
        meeting.unlink(missing_ok=True)


def _as_fast_as_possible(threads: int) -> None:
    """Settings of a whole process: whoever calls `train` keeps their own."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def main() -> None:
    """Start a run, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long, if not before")
    parser.add_argument("--processes", type=int, default=1, help="they share each batch")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--size", choices=SIZES, default="full", help="of a new run")
    parser.add_argument("--steps", type=int, help="length of the schedule; may be changed later on")
    parser.add_argument("--grow-from", type=Path, help="checkpoint or run whose weights a new run starts from")
    parser.add_argument("--extras", type=Path, help="heads and momenta that were exported beside that checkpoint")
    parser.add_argument("--warm-heads", type=int, help="first steps of a new run in which only the heads learn")
    parser.add_argument("--rates", type=float, default=1.0, help="share of the full learning rates, of a new run")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the forward pass, of a new run")
    parser.add_argument("--last-step", type=int, help="stop before this step")
    args = parser.parse_args()
    run = args.run.absolute()
    if not (run / STATE).exists():
        parent = open_any(args.grow_from.absolute(), args.extras) if args.grow_from else None
        given = {"steps": args.steps, "warm_heads": args.warm_heads, "precision": args.precision}
        settings = replace(SIZES[args.size].grown(parent), **{k: v for k, v in given.items() if v is not None})
        rates = {"adam_rate": args.rates * settings.adam_rate, "muon_rate": args.rates * settings.muon_rate}
        vocabulary, settings = load_vocabulary(), replace(settings, **rates)
        start(run, settings, vocabulary, load_atlas(vocabulary), parent)
    elif args.steps:
        replace(Settings.load(run), steps=args.steps).save(run)
    if args.processes == 1:
        _as_fast_as_possible(args.threads)
    launch(run, minutes=args.minutes, last_step=args.last_step, processes=args.processes, threads=args.threads)


if __name__ == "__main__":
    main()

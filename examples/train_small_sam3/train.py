"""Train for some minutes, from wherever the run stopped.

    python -m train_small_sam3.train --run DIR --minutes 60

A run is a folder. The first call makes it (`--grow-from` takes the weights of a smaller checkpoint along); later calls
go on, bit for bit as if there had been no pause.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from .batches import BatchMaker
from .concepts import load_vocabulary
from .icons import load_atlas
from .optimisers import set_rate
from .settings import SIZES, Settings
from .state import TrainingState, resume, start
from .step import losses

LARGEST_GRADIENT = 2.0
LOG = "log.jsonl"


def train(
    run: Path, *, minutes: float, last_step: int | None = None, rank: int = 0, processes: int = 1,
    log_every: int = 25, save_every: int = 400,
) -> int:  # fmt: skip
    """Make steps until the time is up, or the schedule is at its end.

    Args:
        run: Folder of the run.
        minutes: How long; the state is saved when the time is up.
        last_step: Stop before this step.
        rank: Which of the processes this is.
        processes: How many processes share each batch.
        log_every: Steps between lines of the log.
        save_every: Steps between saves.

    Returns:
        How many steps the run has made in all.
    """
    torch.set_flush_denormal(True)
    vocabulary = load_vocabulary()
    state, settings, tokenizer = resume(run, vocabulary)
    maker = BatchMaker(settings, vocabulary, load_atlas(vocabulary), tokenizer, rank=rank, processes=processes)
    end = min(settings.steps, last_step if last_step is not None else settings.steps)
    loader = DataLoader(maker, batch_size=None, sampler=range(state.step, end), num_workers=1, prefetch_factor=4)
    began, sums, counted = time.monotonic(), defaultdict(float), 0
    deadline = began + 60 * minutes
    for batch in loader:
        step_losses = losses(state.model, state.heads, batch, dense_only=state.step < settings.dense_steps)
        stop = _learn(state, settings, step_losses.total, out_of_time=time.monotonic() > deadline, processes=processes)
        for name, value in (step_losses.parts | {"loss": step_losses.total.item()}).items():
            sums[name] += value
        counted += 1
        if rank == 0 and (state.step % log_every == 0 or stop or state.step == end):
            seconds = (time.monotonic() - began) / counted
            _log(run, state.step, {k: v / counted for k, v in sums.items()}, settings, seconds)
            began, sums, counted = time.monotonic(), defaultdict(float), 0
        if rank == 0 and state.step % save_every == 0:
            state.save(run)
        if stop:
            break
    if rank == 0:
        state.save(run)
    return state.step


def _learn(state: TrainingState, settings: Settings, loss: Tensor, *, out_of_time: bool, processes: int) -> bool:
    """Make one step; return whether some process is out of time."""
    set_rate(state.optimisers, settings.rate(state.step))
    weights = [w for o in state.optimisers for group in o.param_groups for w in group["params"]]
    for weight in weights:
        weight.grad = None
    loss.backward()
    if processes > 1:
        out_of_time = _share_gradients(weights, out_of_time, processes)
    norm = torch.nn.utils.clip_grad_norm_([w for w in weights if w.grad is not None], LARGEST_GRADIENT)
    if torch.isfinite(norm):
        for optimiser in state.optimisers:
            optimiser.step()
    state.step += 1
    state.average_weights(settings.ema)
    return out_of_time


def _share_gradients(weights: list[Tensor], out_of_time: bool, processes: int) -> bool:
    """Average the gradients of all processes."""
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([float(out_of_time)])])
    distributed.all_reduce(flat)
    for weight, part in zip(weights, flat[:-1].split([w.numel() for w in weights]), strict=True):
        weight.grad = (part / processes).view_as(weight)
    return bool(flat[-1] > 0)


def _log(run: Path, step: int, parts: dict[str, float], settings: Settings, seconds: float) -> None:
    line = {
        "step": step, "images": step * settings.batch, "rate": round(settings.rate(step), 4),
        "images_a_second": round(settings.batch / seconds, 2), "time": round(time.time()),
        **{k: round(v, 4) for k, v in parts.items()},
    }  # fmt: skip
    with (run / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _worker(rank: int, run: Path, minutes: float, last_step: int | None, processes: int, threads: int) -> None:
    torch.set_num_threads(threads)
    if processes > 1:
        meeting = run / f"meeting-{os.getppid()}"
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    train(run, minutes=minutes, last_step=last_step, rank=rank, processes=processes)
    if processes > 1:
        distributed.destroy_process_group()


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

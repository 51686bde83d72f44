"""Train for some minutes, from wherever the run stopped.

    python -m train_small_sam3.train --run DIR --minutes 60

A run is a folder. The first call makes it (`--grow-from` takes the weights of a smaller checkpoint along); later calls
go on, bit for bit as if there had been no pause.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed

from s3seg.sam3.model import Sam3

from .batch import Batch
from .compiled import compiled_within
from .concepts import load_vocabulary
from .dense_losses import Losses
from .feed import STOPPING, feed
from .icons import load_atlas
from .optimisers import set_rates
from .recorded import RecordedGradients, gradients
from .settings import NO_END, SIZES, Settings
from .state import FILE as STATE
from .state import TrainingState, open_any, resume, start
from .step import kept_in_fp32, losses

LARGEST_GRADIENT = 2.0
COMPILE_SECONDS = 60.0
"""What was compiled stays in a cache of the machine, so that a second run there needs a part of it."""
MOST_SKIPPED = 0.3
"""Share of the steps between two lines of the log whose gradients may be infinite."""
LOG, LOG_EVERY = "log.jsonl", 25


def train(
    run: Path, *, minutes: float, last_step: int | None = None, device: str = "cpu", workers: int = 0, rank: int = 0,
    processes: int = 1, save_minutes: float = 5, saved: Callable[[Path], None] | None = None, compiled: bool = False,
    plan: Callable[[int, Settings], Settings] | None = None,
) -> int:  # fmt: skip
    """Make steps until the time is up, a signal comes, or the schedule is at its end; then save the state.

    On a GPU, losses and gradients are recorded once and replayed from then on; see `recorded`.

    Args:
        run: Folder of the run.
        minutes: How long.
        last_step: Stop before this step.
        device: Where the network learns, "cpu" or "cuda".
        workers: Processes that compose the scenes; 0 composes them in this one.
        rank: Which of the processes this is.
        processes: How many processes share each batch.
        save_minutes: Minutes between saves.
        saved: Called with the folder of the run after each save but the last.
        compiled: Compile the network and its losses with `torch.compile`, if that takes no more than
            `COMPILE_SECONDS`.
        plan: Called with the step before each step, it may change the schedule.

    Returns:
        How many steps the run has made in all.
    """
    place = torch.device(device)
    settings = Settings.load(run)
    last_step = NO_END if last_step is None else last_step
    deadline = time.monotonic() + 60 * minutes
    with ExitStack() as stack:
        interrupted = stack.enter_context(_signals())
        steps = range(steps_made(run), min(settings.steps, last_step))
        batches = stack.enter_context(feed(run, steps, workers=workers, device=place, rank=rank, processes=processes))
        state, settings, _ = resume(
            run, load_vocabulary(), place
        )  # the workers have begun: a GPU takes seconds to open
        stack.enter_context(suited_to(state.model, settings, place))
        log, last_save, compute = Log(run / LOG, settings), time.monotonic(), None
        if place.type == "cuda":
            gc.collect()
            gc.freeze()  # what is there stays; looking through it again and again would only hold up the GPU
        for batch in log.timed(batches):
            compute = compute or _gradients(compiled, state, batch, settings)
            settings = settings if plan is None else plan(state.step, settings)
            state.set_trainable(settings.trained_part, network=state.step >= settings.warm_heads)
            dense_only = state.step < settings.dense_steps
            done = compute(state, batch, dense_only=dense_only, **settings.loss_options)
            enough = bool(interrupted) or time.monotonic() > deadline
            stop, broken = learn_from(state, settings, enough=enough, processes=processes)
            stop = stop or state.step >= min(settings.steps, last_step)
            log.add(done.parts | {"loss": done.total, "skipped": broken})
            save_now = time.monotonic() - last_save > 60 * save_minutes
            skipped = 0.0
            if rank == 0 and (state.step % LOG_EVERY == 0 or stop or save_now):
                skipped = log.write(state.step, settings)["skipped"]
            if skipped > MOST_SKIPPED and processes == 1:
                settings = _start_again(state, settings, run)
            if stop:
                break
            if rank == 0 and save_now and skipped <= MOST_SKIPPED:
                state.save(run)
                if saved is not None:
                    saved(run)
                last_save = time.monotonic()
    if rank == 0:
        state.save(run)
    return state.step


def _gradients(compiled: bool, state: TrainingState, batch: Batch, settings: Settings) -> Callable[..., Losses]:
    """Return what computes the gradients of a step: `gradients`, or the same recorded on a GPU."""
    learn = compiled_within(COMPILE_SECONDS, state, batch, **settings.loss_options) if compiled else losses
    if batch.images.device.type == "cuda":
        return RecordedGradients(learn)
    return partial(gradients, learn)


def _start_again(state: TrainingState, settings: Settings, run: Path) -> Settings:
    """Go back to the weights that were saved last, and on with half the rates; the schedule goes on as it was."""
    step = state.step
    state.load(run)
    state.step = step
    settings = replace(settings, adam_rate=settings.adam_rate / 2, muon_rate=settings.muon_rate / 2)
    settings.save(run)
    print(f"step {step}: losses are no longer finite; back to the last saved weights, at half the rates", flush=True)
    return settings


@contextmanager
def suited_to(model: Sam3, settings: Settings, device: torch.device) -> Iterator[None]:
    """Compute as suits a device: attention, matrix products, and nothing that waits for a GPU."""
    with ExitStack() as stack:
        if settings.precision == "bf16":
            stack.enter_context(kept_in_fp32(model))
        if device.type != "cpu":
            stack.enter_context(_tf32())
            stack.enter_context(_without_cudnn_attention())
            stack.enter_context(_tried_convolutions())
        yield


@contextmanager
def _tf32() -> Iterator[None]:
    """Let matrix products and convolutions in fp32 run on the tensor cores of a GPU, with 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def _tried_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms for each convolution, once for each shape: the shapes never change."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _without_cudnn_attention() -> Iterator[None]:
    """Choose among the other attention kernels: with a mask, cuDNN's backward pass gives NaN at some lengths."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class Log:
    """Means of the losses over some steps, a line of JSON each time they are written."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.batch = path, settings.batch
        self._reset()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, and measure how long training waits for them; before the first, nothing counts."""
        asked = None
        for batch in batches:
            if asked is None:
                self._reset()
            else:
                self.waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def add(self, parts: dict[str, Tensor]) -> None:
        """Count a step."""
        self.count += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0) + value

    def write(self, step: int, settings: Settings) -> dict:
        """Write the means since the last line, and return them."""
        losses = {name: round(float(total) / self.count, 4) for name, total in self.sums.items()}  # waits for a GPU
        seconds = time.monotonic() - self.began
        line = {
            "step": step, "images": step * self.batch, "rate": round(settings.rate(step), 4),
            "images_a_second": round(self.batch * self.count / seconds, 2),
            "waited_for_scenes": round(self.waited / seconds, 3), "time": round(time.time()), **losses,
        }  # fmt: skip
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._reset()
        return line

    def _reset(self) -> None:
        self.sums: dict[str, Tensor | int] = {}
        self.count, self.began, self.waited = 0, time.monotonic(), 0.0


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


def learn_from(state: TrainingState, settings: Settings, *, enough: bool, processes: int) -> tuple[bool, Tensor]:
    """Move the weights as their gradients say.

    Returns:
        Whether some process has had enough, and 1 where the gradients were not finite, else 0.
    """
    set_rates(state.optimisers, settings, state.step)
    weights = [w for o in state.optimisers for group in o.param_groups for w in group["params"]]
    learning = [w for w in weights if w.requires_grad]
    if processes > 1:
        enough = _share_gradients(learning, enough, processes)
    gradients = [w.grad for w in weights if w.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    broken = ~torch.isfinite(norm)  # not asked for here: a GPU would be waited for
    for gradient in gradients:
        gradient.masked_fill_(broken, 0)  # such a step moves the weights by their momenta only
    torch._foreach_mul_(gradients, (LARGEST_GRADIENT / norm.masked_fill(broken, 1)).clamp(max=1))
    for optimiser in state.optimisers:
        optimiser.step()
    state.step += 1
    state.average_weights(settings.ema)
    return enough, broken.float()


def _share_gradients(weights: list[Tensor], enough: bool, processes: int) -> bool:
    """Average the gradients of all processes; return whether some process has had enough."""
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([float(enough)])])
    distributed.all_reduce(flat)
    for weight, part in zip(weights, flat[:-1].split([w.numel() for w in weights]), strict=True):
        weight.grad = (part / processes).view_as(weight)
    return bool(flat[-1] > 0)


def launch(
    run: Path, *, minutes: float, last_step: int | None = None, device: str = "cpu", workers: int = 1,
    processes: int = 1, threads: int = 1, compiled: bool = False,
) -> None:  # fmt: skip
    """Train in this process, or in several further ones; a signal to this one is passed on to them."""
    if (batch := Settings.load(run).batch) % processes:
        raise ValueError(f"{processes} processes cannot share a batch of {batch} images equally")
    if processes == 1:
        train(run, minutes=minutes, last_step=last_step, device=device, workers=workers, compiled=compiled)
        return
    if device != "cpu":
        raise ValueError(f"several processes share a batch on a CPU only, not on {device!r}")
    parts = (run, minutes, last_step, processes, threads, workers)
    workers = torch.multiprocessing.start_processes(_worker, parts, nprocs=processes, start_method="spawn", join=False)
    with _signals() as received:
        while not workers.join(timeout=1):
            while received:
                number = received.pop()
                for pid in workers.pids():
                    os.kill(pid, number)


def begin_cool_down(run: Path, *, minutes: float) -> Settings:
    """Plan that the learning rate falls to zero over some minutes from here, at the speed of the run's last steps.

    The plan is steps, written into the run's settings: what follows can be interrupted and resumed as before. A fall
    that has begun is planned anew, from the rate that it has reached.

    Raises:
        ValueError: The run has trained too little for its speed to be known, or its rate is zero already.
    """
    settings, step = Settings.load(run), steps_made(run)
    if not (run / LOG).exists():
        raise ValueError(f"{run} has not trained yet; train it for some minutes first")
    if not (rate := settings.rate(step)):
        raise ValueError(f"the learning rate of {run} has reached zero already")
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()[-20:]]
    lines = [line for line in lines if line["step"] > settings.warm_heads] or lines  # a frozen network is faster
    speed = sum(line["images_a_second"] for line in lines) / len(lines)
    settings = settings.cool_down(step, max(1, round(60 * minutes * speed / settings.batch)), rate)
    settings.save(run)
    return settings


def steps_made(run: Path) -> int:
    """Return how many steps a run has made, as it was last saved."""
    return torch.load(run / STATE, weights_only=True, mmap=True, map_location="cpu")["step"]


def _worker(
    rank: int, run: Path, minutes: float, last_step: int | None, processes: int, threads: int, workers: int
) -> None:  # fmt: skip
    _as_fast_as_possible(threads)
    meeting = run / f"meeting-{os.getppid()}"
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes,
        timeout=timedelta(days=365),  # a run may be paused by SIGSTOP for hours
    )  # fmt: skip
    try:
        train(run, minutes=minutes, last_step=last_step, rank=rank, processes=processes, workers=workers)
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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes, for each that trains")
    parser.add_argument("--compile", action="store_true", help="compile the network and the losses first")
    parser.add_argument("--size", choices=SIZES, default="full", help="of a new run")
    parser.add_argument("--steps", type=int, help="length of the schedule; may be changed later on")
    parser.add_argument("--grow-from", type=Path, help="checkpoint or run whose weights a new run starts from")
    parser.add_argument("--extras", type=Path, help="heads and momenta that were exported beside that checkpoint")
    parser.add_argument("--warm-heads", type=int, help="first steps of a new run in which only the heads learn")
    parser.add_argument("--rates", type=float, default=1.0, help="share of the full learning rates, of a new run")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the forward pass, of a new run")
    parser.add_argument(
        "--clicks", action="store_true", help="give a new run a click head, trained by simulated clicks"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of a new run; settings.py explains them"
    )
    parser.add_argument("--last-step", type=int, help="stop before this step")
    parser.add_argument("--cool-down", type=float, metavar="MINUTES", help="let the rates fall to zero over so long")
    args = parser.parse_args()
    run = args.run.absolute()
    if not (run / STATE).exists():
        parent = open_any(args.grow_from.absolute(), args.extras) if args.grow_from else None
        given = {"clicks": args.clicks, "steps": args.steps, "warm_heads": args.warm_heads, "precision": args.precision}
        settings = replace(SIZES[args.size].grown(parent), **{k: v for k, v in given.items() if v is not None})
        try:
            settings = settings.with_overrides(args.set)
        except ValueError as error:
            parser.error(str(error))
        rates = {"adam_rate": args.rates * settings.adam_rate, "muon_rate": args.rates * settings.muon_rate}
        vocabulary, settings = load_vocabulary(), replace(settings, **rates)
        start(run, settings, vocabulary, load_atlas(vocabulary), parent)
    elif args.steps:
        replace(Settings.load(run), steps=args.steps).save(run)
    if args.cool_down:
        try:
            begin_cool_down(run, minutes=args.cool_down)
        except ValueError as error:
            parser.error(str(error))
    if args.processes == 1:
        _as_fast_as_possible(args.threads)
    launch(
        run, minutes=args.minutes, last_step=args.last_step, device=args.device, workers=args.workers,
        processes=args.processes, threads=args.threads, compiled=args.compile,
    )  # fmt: skip


if __name__ == "__main__":
    main()

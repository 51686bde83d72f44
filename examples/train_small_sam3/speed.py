"""Measure what a machine can do before a long run on it: the network alone, the scenes alone, and both together.

    python -m train_small_sam3.speed --size wide --clicks --seconds 4 --device cuda --kernels

The workers compose from the start on. What they have made by the time is used up before anything is measured that
depends on them. Nothing is kept.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .batch import Batch, DrawnScenes
from .batches import view_of
from .compiled import compiled_within
from .concepts import load_vocabulary
from .dense_losses import Losses
from .feed import AHEAD, scenes_of
from .icons import load_atlas
from .recorded import RecordedGradients, gradients
from .settings import SIZES, Settings
from .state import TrainingState, open_any, resume, start
from .step import losses
from .train import COMPILE_SECONDS, learn_from, suited_to
from .within import add_settings, agreement, changed_settings, given_settings, memory

KERNELS = 15
Say = Callable[[str], None]
Scenes = Iterator[tuple[int, DrawnScenes]]


def main() -> None:
    """Print images per second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="gpu")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that compose scenes")
    parser.add_argument("--seconds", type=float, default=8, help="of each part")
    parser.add_argument("--compile", action="store_true", help="measure the compiled network, too")
    parser.add_argument("--kernels", action="store_true", help=f"print the {KERNELS} dearest kernels of a step")
    parser.add_argument("--no-check", action="store_true", help="do not compare the CPU's losses with the GPU's first")
    parser.add_argument("--grow-from", type=Path, help="checkpoint or run whose weights to start from")
    add_settings(parser)
    args = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    vocabulary, parent = load_vocabulary(), open_any(args.grow_from.absolute()) if args.grow_from else None
    with tempfile.TemporaryDirectory() as folder:
        run, device = Path(folder) / "run", torch.device(args.device)
        settings = changed_settings(args.size, given_settings(args))
        start(run, settings, vocabulary, load_atlas(vocabulary), parent)
        say("the run is ready")
        with scenes_of(run, range(10**9), workers=args.workers, device=device) as scenes:
            if not args.no_check:
                say(agreement(run, args.device))
            state, settings, _ = resume(run, vocabulary, device)
            _, drawn = next(scenes)
            say("the first scenes are there")
            with suited_to(state.model, settings, device):
                batch = view_of(drawn, 0, settings, 0)
                compute = _network_alone(state, settings, batch, args.seconds, compile_too=args.compile, say=say)
                if args.kernels:
                    _kernels(compute, state, settings, batch, say)
                _scenes_alone(scenes, settings, args.workers, args.seconds, say)
                _both(compute, state, settings, scenes, args.seconds, device, say)
    say(f"done{memory(device.type)}")


def _network_alone(
    state: TrainingState, settings: Settings, batch: Batch, seconds: float, *, compile_too: bool, say: Say
) -> Callable[..., Losses]:  # fmt: skip
    """Measure it in all the ways that there are, and return the last, which is the quickest."""
    on_gpu = batch.images.device.type == "cuda"
    compute = functools.partial(gradients, losses)
    for dense_only in (True, False):
        speed = _steps_a_second(compute, state, settings, batch, seconds / 2, dense_only=dense_only)
        kind = "dense losses only" if dense_only else "all losses"
        say(f"the network alone, {kind}: {_speed(speed, settings)}")
    say(f"the network alone{memory(batch.images.device.type)}")
    if on_gpu:
        compute = _recorded(losses, state, settings, batch, seconds, say)
    if not compile_too:
        return compute
    began = time.monotonic()
    learn = compiled_within(COMPILE_SECONDS, state, batch, **settings.loss_options)
    say(f"compiling took {time.monotonic() - began:.1f} s")
    if learn is losses:
        return compute
    compute = functools.partial(gradients, learn)
    speed = _steps_a_second(compute, state, settings, batch, seconds / 2, dense_only=False)
    say(f"compiled: {_speed(speed, settings)}")
    return _recorded(learn, state, settings, batch, seconds, say) if on_gpu else compute


def _recorded(
    learn: Callable[..., Losses], state: TrainingState, settings: Settings, batch: Batch, seconds: float, say: Say
) -> RecordedGradients:  # fmt: skip
    """Record the losses, compare the gradients with those that are not recorded, and measure the speed."""
    compute, found = RecordedGradients(learn), []
    for each in (functools.partial(gradients, learn), compute, compute):
        each(state, batch, dense_only=False, **settings.loss_options)
        found.append(torch.cat([w.grad.flatten() for w in state.learned.values() if w.grad is not None]))
    plain, *others = found
    differences = [f"{float((other - plain).norm() / plain.norm()):.1e}" for other in others]
    say(f"recorded gradients differ by {' and '.join(differences)} from those that are not")
    speed = _steps_a_second(compute, state, settings, batch, seconds / 2, dense_only=False)
    say(f"recorded: {_speed(speed, settings)}{memory('cuda')}")
    return compute


def _speed(steps_a_second: float, settings: Settings) -> str:
    return f"{steps_a_second * settings.batch:.0f} images/s, {1000 / steps_a_second:.1f} ms a step"


def _step(
    compute: Callable[..., Losses], state: TrainingState, settings: Settings, batch: Batch, *, dense_only: bool = False
) -> None:
    compute(state, batch, dense_only=dense_only, **settings.loss_options)
    learn_from(state, settings, enough=False, processes=1)


def _steps_a_second(
    compute: Callable[..., Losses], state: TrainingState, settings: Settings, batch: Batch, seconds: float, *,
    dense_only: bool,
) -> float:  # fmt: skip
    device = batch.images.device
    for _ in range(3):
        _step(compute, state, settings, batch, dense_only=dense_only)
    _wait(device)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for _ in range(5 if device.type == "cuda" else 1):  # a GPU is asked for several steps before it is waited for
            _step(compute, state, settings, batch, dense_only=dense_only)
            count += 1
        _wait(device)
    return count / (time.monotonic() - began)


def _kernels(compute: Callable[..., Losses], state: TrainingState, settings: Settings, batch: Batch, say: Say) -> None:
    """Print what takes longest in a step: operations with the shapes of what they are given, and kernels of a GPU."""
    device = batch.images.device
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities, record_shapes=True) as profiled:
        _step(compute, state, settings, batch)
        _wait(device)
    began = time.monotonic()
    on_gpu = device.type == "cuda"
    found = profiled.key_averages(group_by_input_shape=True)

    def milliseconds(event) -> float:
        return (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1000

    operations = [event for event in found if event.key.startswith("aten::") or "Backward" in event.key]
    kernels = [
        event for event in profiled.key_averages()
        if event.device_type != torch.profiler.DeviceType.CPU and not event.key.startswith("Optimizer.")
    ]  # fmt: skip
    say(f"kernels of a step: {sum(milliseconds(event) for event in kernels):.1f} ms")
    for kind in (operations, kernels):
        for event in sorted(kind, key=milliseconds, reverse=True)[:KERNELS]:
            shapes = " ".join(str(shape).replace(" ", "") for shape in event.input_shapes or () if shape)
            print(f"    {milliseconds(event):8.2f} ms {event.count:5} x {event.key[:90]} {shapes[:110]}", flush=True)
    say(f"looking through them took {time.monotonic() - began:.1f} s")


def _scenes_alone(scenes: Scenes, settings: Settings, workers: int, seconds: float, say: Say) -> None:
    """Measure how many scenes come when what was made before is used up; all workers give equally many."""
    workers = max(1, workers)
    for _ in range((AHEAD + 1) * workers - 1):  # the first has been taken
        next(scenes)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds or count % workers:
        next(scenes)
        count += 1
    speed = count * settings.batch / (time.monotonic() - began)
    say(f"the scenes alone: {speed:.0f} scenes/s, {speed * settings.views:.0f} views/s, from {count} batches of scenes")


def _both(
    compute: Callable[..., Losses], state: TrainingState, settings: Settings, scenes: Scenes, seconds: float,
    device: torch.device, say: Say,
) -> None:  # fmt: skip
    began, steps, waited = time.monotonic(), 0, 0.0
    while time.monotonic() - began < 2 * seconds:
        asked = time.monotonic()
        item, drawn = next(scenes)
        waited += time.monotonic() - asked
        for view in range(settings.views):
            step = item * settings.views + view
            _step(compute, state, settings, view_of(drawn, view, settings, step))
            steps += 1
        _wait(device)
    spent = time.monotonic() - began
    say(
        f"both together: {steps * settings.batch / spent:.0f} images/s; {waited / spent:.2f} of the time without scenes"
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

"""Measure what a machine can do before a long run on it: the network alone, the scenes alone, and both together.

    python -m train_small_sam3.speed --size gpu --views 2 --seconds 8 --device cuda

Each part takes about `--seconds`, besides what it takes to start. Nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .batch import Batch
from .compiled import compiled_within
from .concepts import load_vocabulary
from .dense_losses import Losses
from .feed import feed, scenes_of
from .icons import load_atlas
from .settings import SIZES, Settings
from .state import TrainingState, open_any, resume, start
from .step import losses
from .train import COMPILE_SECONDS, LOG, learn_from, suited_to, train
from .within import add_settings, agreement, changed_settings, given_settings, memory


def main() -> None:
    """Print images per second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="gpu")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that compose scenes")
    parser.add_argument("--seconds", type=float, default=8, help="of each part")
    parser.add_argument("--compile", action="store_true", help="measure the compiled network, too")
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
        say(f"started; {agreement(run, args.device)}")
        _network_alone(run, args.seconds, device, compile_too=args.compile, say=say)
        _scenes_alone(run, args.seconds, args.workers, device, say)
        train(run, minutes=(2 * args.seconds + 10) / 60, device=args.device, workers=args.workers)
        say("both together, from when the workers have started:")
        for line in (run / LOG).read_text().splitlines():
            shown = json.loads(line)
            names = ("step", "images_a_second", "waited_for_scenes", "loss", "skipped", "patch_accuracy", "box_iou")
            print("    " + ", ".join(f"{name} {shown[name]}" for name in names if name in shown), flush=True)
    say(f"done{memory(device.type)}")


def _network_alone(
    run: Path, seconds: float, device: torch.device, *, compile_too: bool, say: Callable[[str], None]
) -> None:  # fmt: skip
    state, settings, _ = resume(run, load_vocabulary(), device)
    with feed(run, range(1), workers=0, device=device) as batches:
        batch = next(batches)
    with suited_to(state.model, settings, device):
        for dense_only in (True, False):
            speed = _steps_a_second(losses, state, settings, batch, seconds / 2, dense_only=dense_only)
            kind = "dense losses only" if dense_only else "all losses"
            say(f"the network alone, {kind}: {speed * settings.batch:.0f} images/s, {1000 / speed:.1f} ms a step")
        say(f"the network alone{memory(device.type)}")
        if compile_too:
            began = time.monotonic()
            learn = compiled_within(COMPILE_SECONDS, state, batch, precision=settings.precision, dense_too=False)
            say(f"compiling took {time.monotonic() - began:.1f} s")
            if learn is not losses:
                speed = _steps_a_second(learn, state, settings, batch, seconds / 2, dense_only=False)
                say(f"compiled: {speed * settings.batch:.0f} images/s, {1000 / speed:.1f} ms a step")


def _steps_a_second(
    learn: Callable[..., Losses], state: TrainingState, settings: Settings, batch: Batch, seconds: float, *,
    dense_only: bool,
) -> float:  # fmt: skip
    def step() -> None:
        done = learn(state.model, state.heads, batch, dense_only=dense_only, precision=settings.precision)
        learn_from(state, settings, done.total, enough=False, processes=1)

    device = batch.images.device
    for _ in range(3):
        step()
    _wait(device)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for _ in range(5 if device.type == "cuda" else 1):  # a GPU is asked for several steps before it is waited for
            step()
            count += 1
        _wait(device)
    return count / (time.monotonic() - began)


def _scenes_alone(
    run: Path, seconds: float, workers: int, device: torch.device, say: Callable[[str], None]
) -> None:  # fmt: skip
    settings = Settings.load(run)
    with scenes_of(run, range(10**9), workers=workers, device=device) as scenes:
        for _ in range(max(1, workers)):  # each has opened its drawings
            next(scenes)
        say(f"{workers} workers have started")
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            next(scenes)
            count += settings.batch
        speed = count / (time.monotonic() - began)
    say(f"the scenes alone: {speed:.0f} scenes/s, {speed * settings.views:.0f} views/s")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

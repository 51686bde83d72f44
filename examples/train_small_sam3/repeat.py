"""Train, cool down, export, evaluate and draw: one command from nothing, or from a parent, to a checkpoint.

python -m train_small_sam3.repeat --out DIR                  # the whole schedule: many hours
python -m train_small_sam3.repeat --out DIR --minutes 120    # as much as two hours allow; the last part cools down
python -m train_small_sam3.repeat --out DIR --size short     # some minutes: everything happens, little is learned
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from .concepts import load_vocabulary
from .curve import draw_curve
from .evaluate import evaluate
from .export import EXTRAS, export
from .grid import draw_grid
from .icons import load_atlas
from .settings import NO_END, SIZES, Settings
from .splits import SPLITS
from .state import open_any, start
from .train import begin_cool_down, launch, steps_made

DENSE_SHARE = 0.12
"""Share of the steps in which, without a parent to grow from, patches learn words before there are queries."""


def repeat(
    out: Path, *, size: str, scenes: int, parent: Path | None = None, minutes: float | None = None, processes: int = 1,
    version: str = "0.7",
) -> dict:  # fmt: skip
    """Make a checkpoint in `out/checkpoint`; a second call goes on where the first was stopped.

    Args:
        out: Folder for the run, the checkpoint and its figures.
        size: One of `SIZES`.
        scenes: Scenes of each split to evaluate it on.
        parent: Checkpoint or run whose weights to start from; without one, everything is learned.
        minutes: Time for training, cool-down included; None trains by the schedule of the size.
        processes: How many processes share each batch.
        version: Of the checkpoint.

    Returns:
        The figures, as `evaluate` gives them.
    """
    run, checkpoint = out / "run", out / "checkpoint"
    if not (run / "state.pt").exists():
        _start(run, size, parent, by_the_clock=minutes is not None)
    settings = Settings.load(run)
    if settings.steps == NO_END:
        if minutes is None:
            raise ValueError(f"{run} trains by the clock: say how many minutes are left, with --minutes")
        cooling = minutes * settings.cooldown
        _train(run, minutes=minutes - cooling, processes=processes)
        begin_cool_down(run, minutes=cooling)
    _train(run, minutes=float("inf"), processes=processes)
    export(run, checkpoint, name="s3seg-embedded", version=version, threshold=0.5)
    figures = evaluate(checkpoint, scenes=scenes, splits=SPLITS, threshold=None, dtype="float32")
    export(run, checkpoint, name="s3seg-embedded", version=version, threshold=figures["threshold"], extras=out / EXTRAS)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_grid(checkpoint, out / "grid.png", threshold=figures["threshold"])
    draw_curve(run, out / "curve.png")
    return figures


def _start(run: Path, size: str, parent: Path | None, *, by_the_clock: bool) -> None:
    vocabulary, opened = load_vocabulary(), open_any(parent) if parent else None
    settings = SIZES[size].grown(opened) if opened else SIZES[size].from_nothing(DENSE_SHARE)
    if by_the_clock:
        settings = replace(settings, steps=NO_END)
    start(run, settings, vocabulary, load_atlas(vocabulary), opened)


def _train(run: Path, *, minutes: float, processes: int) -> None:
    """Train for some minutes, or to the end of the schedule; leave the program if a signal came first."""
    began = time.monotonic()
    launch(run, minutes=minutes, processes=processes)
    if steps_made(run) < Settings.load(run).steps and time.monotonic() - began < 60 * minutes:
        sys.exit(f"interrupted; the run in {run} is saved, and the same command goes on with it")


def main() -> None:
    """Make a checkpoint, a real or a small one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--minutes", type=float, help="time for training and cool-down; a resumed run gets it anew")
    parser.add_argument("--scenes", type=int, help="of each split; 200, or 10 for a small run")
    parser.add_argument("--grow-from", type=Path, help="checkpoint or run whose weights to start from")
    parser.add_argument("--processes", type=int, default=1, help="they share each batch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for the evaluation")
    parser.add_argument("--version", default="0.7")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = repeat(
        args.out.absolute(), size=args.size, scenes=args.scenes or (200 if args.size == "full" else 10),
        parent=args.grow_from and args.grow_from.absolute(), minutes=args.minutes, processes=args.processes,
        version=args.version,
    )  # fmt: skip
    print(f"threshold {figures['threshold']}; figures, grid and curve are in {args.out}")


if __name__ == "__main__":
    main()

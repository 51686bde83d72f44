"""Train within a number of minutes, all included: one command for a machine that is lent for a short time.

    python -m train_small_sam3.within --minutes 9 --out DIR --device cuda      # on a GPU
    python -m train_small_sam3.within --minutes 1 --out DIR --size tiny        # the rehearsal, on a CPU

It trains, cools down, exports, evaluates and draws. At the end at most eight files are in DIR, none larger than 16 MiB:
the run (renewed every minute; `bundle` restores it), the figures, a grid of predictions, the curve and the log. With
`--go-on-from` the folder of an earlier time, it takes up that run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .batches import BatchMaker
from .bundle import pack, unpack
from .concepts import load_vocabulary
from .curve import draw_curve
from .export import export
from .icons import load_atlas
from .settings import NO_END, SIZES, Settings
from .state import open_any, resume, start
from .step import kept_in_fp32, losses
from .train import LOG, train

DENSE_SHARE = 0.08
"""Share of the training time in which, without a parent, patches learn words before there are queries."""
FINISH_SHARE, MOST_FINISH_S = 0.3, 100.0
"""What is kept for export, evaluation and pictures: a share of all the time, but no more seconds than this."""
PACKING_S = 8.0
"""What is kept for packing the run when nothing is evaluated."""
CAUTION = 0.97
"""Share of the steps that the remaining time allows which the cool-down gets, so that the rate reaches zero in time."""
AGAIN_SHARE, LOWEST_RATE = 0.03, 0.03
"""The cool-down is planned anew after each such share of the time, so that it ends in time whatever becomes of the
speed, until the rate is as low as this."""


@dataclass
class TimePlan:
    """Turns shares of the training time into steps of the schedule, when their time has come, and writes them down.

    Attributes:
        run: Folder of the run, whose settings are changed.
        began: When training began, on `time.monotonic`.
        seconds: How long it may take, cool-down included.
    """

    run: Path
    began: float
    seconds: float
    _seen: tuple[float, int] | None = None

    def __call__(self, step: int, settings: Settings) -> Settings:
        """Return the settings from this step on."""
        now = time.monotonic()
        share = (now - self.began) / self.seconds
        if settings.dense_steps == NO_END and share >= DENSE_SHARE:
            settings = replace(settings, dense_steps=step)
            settings.save(self.run)
            self._seen = None  # steps take longer from here on
        if self._seen is None:
            self._seen = (now, step)
        elif step > self._seen[1]:
            cooling, waited = settings.steps < NO_END, now - self._seen[0]
            rate = settings.rate(step) if cooling else 1.0
            again = cooling and waited >= AGAIN_SHARE * self.seconds and rate > LOWEST_RATE
            if again or (not cooling and share >= 1 - settings.cooldown):
                left = self.began + self.seconds - now
                steps = max(1, int(CAUTION * left * (step - self._seen[1]) / waited))
                settings = settings.cool_down(step, steps, rate)
                settings.save(self.run)
                self._seen = (now, step)
        return settings


def within(
    out: Path, *, minutes: float, size: str, device: str, workers: int, work: Path, parent: Path | None = None,
    go_on_from: Path | None = None, scenes: int = 200, save_seconds: float = 45, compiled: bool = False,
    version: str = "0.7", evaluated: bool = True, checked: bool = True, **changed,
) -> dict:  # fmt: skip
    """Train, cool down, export, evaluate and draw.

    Args:
        out: Folder for what is taken home.
        minutes: How long, all included.
        size: One of `SIZES`.
        device: "cpu" or "cuda".
        workers: Processes that compose scenes, and that evaluate later on.
        work: Folder for the run while it trains.
        parent: Checkpoint or run whose weights to start from.
        go_on_from: Folder with the files of an earlier call.
        scenes: Of each split of the evaluation, if there is time.
        save_seconds: Seconds between two saves.
        compiled: Compile the network first.
        version: Of the checkpoint.
        evaluated: Export, evaluate and draw at the end; otherwise all the time is for training.
        checked: Compare the losses of the CPU and the GPU first.
        **changed: Settings of a new run that differ from those of its size; None changes nothing.

    Returns:
        The figures, as `evaluate` gives them; none if nothing was evaluated.
    """
    began = time.monotonic()
    end = began + 60 * minutes
    finish = min(FINISH_SHARE * 60 * minutes, MOST_FINISH_S) if evaluated else min(0.05 * 60 * minutes, PACKING_S)
    run, checkpoint = work / "run", work / "checkpoint"
    out.mkdir(parents=True, exist_ok=True)
    _begin(run, changed_settings(size, changed), parent, go_on_from)
    _report(f"{device}: {agreement(run, device)}" if checked else f"{device}: the run is ready", began)
    plan = TimePlan(run, time.monotonic(), end - finish - time.monotonic())

    def saved(run: Path) -> None:
        pack(run, out)
        shutil.copy(run / LOG, out / LOG)
        _report(_last_line(run), began)

    steps = train(
        run, minutes=plan.seconds / 60, device=device, workers=workers, save_minutes=save_seconds / 60, saved=saved,
        compiled=compiled, plan=plan,
    )  # fmt: skip
    saved(run)
    _report(f"trained {steps} steps, {steps * Settings.load(run).batch} images{memory(device)}", began)
    if not evaluated:
        return {}
    from .evaluate import evaluate  # needs packages that training does without
    from .grid import draw_grid
    from .splits import SPLITS

    export(run, checkpoint, name="s3seg-embedded", version=version, threshold=0.5)
    draw_curve(run, out / "curve.png")
    left = end - time.monotonic()
    figures = evaluate(
        checkpoint, scenes=scenes, splits=SPLITS, threshold=None, dtype="float32", processes=max(1, workers),
        seconds=0.75 * left,
    )  # fmt: skip
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_grid(checkpoint, out / "grid.png", threshold=figures["threshold"])
    _report("done", began)
    return figures


def changed_settings(size: str, changed: dict) -> Settings:
    """Return the settings of a size with some of them changed; None changes nothing."""
    return replace(SIZES[size], **{name: value for name, value in changed.items() if value is not None})


def memory(device: str) -> str:
    """Say how much memory of a GPU has been in use at most."""
    if device != "cuda":
        return ""
    return f", at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of GPU memory"


def _begin(run: Path, settings: Settings, parent: Path | None, go_on_from: Path | None) -> None:
    """Make the run, or restore it; its schedule is set by the clock."""
    if go_on_from is not None:
        unpack(go_on_from, run)
        settings = Settings.load(run)
        replace(settings, steps=NO_END, cooldown=Settings().cooldown).save(run)
        return
    vocabulary, opened = load_vocabulary(), open_any(parent) if parent else None
    settings = replace(settings.grown(opened), steps=NO_END, dense_steps=0 if opened else NO_END)
    start(run, settings, vocabulary, load_atlas(vocabulary), opened)


def agreement(run: Path, device: str) -> str:
    """Return how near the loss on the device is to the CPU's, for some images: a line for the log."""
    vocabulary = load_vocabulary()
    state, settings, tokenizer = resume(run, vocabulary)
    few = replace(settings, batch=min(8, settings.batch))
    batch = BatchMaker(few, vocabulary, load_atlas(vocabulary), tokenizer)[0]

    def loss(place: str, precision: str) -> float:
        state.model.to(place)
        state.heads.to(place)
        given = type(batch)(**{name: getattr(batch, name).to(place) for name in batch.__dataclass_fields__})
        with torch.no_grad(), kept_in_fp32(state.model):
            done = losses(state.model, state.heads, given, dense_only=False, precision=precision, fixed_shapes=True)
        return float(done.total)

    exact = loss("cpu", "fp32")
    found = {precision: loss(device, precision) for precision in ("fp32", "bf16")}
    return f"loss {exact:.4f} on the CPU, " + ", ".join(f"{v:.4f} in {k}" for k, v in found.items())


def _last_line(run: Path) -> str:
    line = json.loads((run / LOG).read_text().splitlines()[-1])
    shown = ("step", "images", "rate", "images_a_second", "waited_for_scenes", "loss", "patch_accuracy", "box_iou")
    return ", ".join(f"{name} {line[name]}" for name in shown if name in line)


def _report(text: str, began: float) -> None:
    print(f"[{time.monotonic() - began:5.0f} s] {text}", flush=True)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add options for the settings of a new run that differ from those of its size."""
    parser.add_argument("--clicks", action="store_true", default=None, help="give a new network a click head")
    parser.add_argument("--views", type=int, help="batches that are made of the same drawn scenes")
    parser.add_argument("--batch", type=int, help="images in a step")
    parser.add_argument("--prompts", type=int, help="prompts per image that is asked")
    parser.add_argument("--asked", type=float, help="share of the images of a step that are asked with prompts, 0..1")
    parser.add_argument("--image-size", type=int, help="side of the network's input in pixels, a multiple of 16")
    parser.add_argument("--queries", type=int, help="a square number")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="further settings of a run; settings.py has them"
    )


def given_settings(args: argparse.Namespace) -> dict:
    """Return what `add_settings` read."""
    names = ("clicks", "views", "batch", "prompts", "asked", "image_size", "queries")
    try:
        more = Settings().with_overrides(args.set)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    return {name: getattr(args, name) for name in names} | {
        name: getattr(more, name) for name, _, _ in (text.partition("=") for text in args.set)
    }


def main() -> None:
    """Train within a number of minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True, help="all included")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is taken home")
    parser.add_argument("--size", choices=SIZES, default="gpu")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that compose scenes")
    parser.add_argument("--work", type=Path, help="folder for the run itself; a temporary one, if not given")
    parser.add_argument("--grow-from", type=Path, help="checkpoint or run whose weights to start from")
    parser.add_argument("--go-on-from", type=Path, help="folder with the files that an earlier call left in its --out")
    parser.add_argument("--scenes", type=int, default=200, help="of each split of the evaluation, if there is time")
    parser.add_argument("--save-seconds", type=float, default=45)
    parser.add_argument("--compile", action="store_true", help="compile the network and the losses, within 60 s")
    parser.add_argument("--no-evaluation", action="store_true", help="train to the end; evaluate elsewhere")
    parser.add_argument("--no-check", action="store_true", help="do not compare the CPU's losses with the GPU's first")
    parser.add_argument("--version", default="0.7", help="of the checkpoint")
    add_settings(parser)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as temporary:
        within(
            args.out.absolute(), minutes=args.minutes, size=args.size, device=args.device, workers=args.workers,
            work=(args.work or Path(temporary)).absolute(), parent=args.grow_from, go_on_from=args.go_on_from,
            scenes=args.scenes, save_seconds=args.save_seconds, compiled=args.compile, version=args.version,
            evaluated=not args.no_evaluation, checked=not args.no_check, **given_settings(args),
        )  # fmt: skip


if __name__ == "__main__":
    main()

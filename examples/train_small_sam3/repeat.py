"""Everything from nothing: icons, training, examination, export.

python -m train_small_sam3.repeat --out DIR             # the checkpoint that is shipped: many hours
python -m train_small_sam3.repeat --out DIR --size short  # about two minutes: everything happens, little is learned
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from .concepts import load_vocabulary
from .curve import draw_curve
from .evaluate import evaluate
from .export import export
from .grid import draw_grid
from .icons import load_atlas
from .settings import SIZES
from .splits import SPLITS
from .state import start
from .train import train

DENSE_SHARE = 0.12
"""Share of the steps in which, without a parent to grow from, patches learn words before there are queries."""


def repeat(out: Path, *, size: str, scenes: int, parent: Path | None = None) -> dict:
    """Make a checkpoint in `out/checkpoint`; a second call goes on where the first was stopped.

    Args:
        out: Folder for the run, the checkpoint and its figures.
        size: One of `SIZES`.
        scenes: Scenes of each split to examine it on.
        parent: Checkpoint whose weights to start from; without one, everything is learned.

    Returns:
        The figures, as `evaluate` gives them.
    """
    run, checkpoint = out / "run", out / "checkpoint"
    if not (run / "state.pt").exists():
        vocabulary = load_vocabulary()
        settings = SIZES[size].from_nothing(DENSE_SHARE) if parent is None else SIZES[size]
        start(run, settings, vocabulary, load_atlas(vocabulary), parent)
    train(run, minutes=float("inf"))
    export(run, checkpoint, name="s3seg-embedded", version="0", threshold=0.5)
    figures = evaluate(checkpoint, scenes=scenes, splits=SPLITS, threshold=None, dtype="float32")
    export(run, checkpoint, name="s3seg-embedded", version="0.2", threshold=figures["threshold"])
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_grid(checkpoint, out / "grid.png", threshold=figures["threshold"])
    draw_curve(run, out / "curve.png")
    return figures


def main() -> None:
    """Repeat the whole run, or a small one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--scenes", type=int, help="of each split; 200, or 10 for a small run")
    parser.add_argument("--grow-from", type=Path, help="checkpoint whose weights to start from")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scenes = args.scenes or (200 if args.size == "full" else 10)
    repeat(args.out.absolute(), size=args.size, scenes=scenes, parent=args.grow_from)


if __name__ == "__main__":
    main()

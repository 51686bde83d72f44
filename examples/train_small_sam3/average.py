"""Average the weights of a checkpoint and of the one that it was trained from: often better than either.

    python -m train_small_sam3.average CHECKPOINT PARENT --out AVERAGE

Weights that were trained on from others for a short time can be averaged with them (Wortsman et al., 2022, "Robust
fine-tuning of zero-shot models"): what was learned last stays, and little of what was known is lost.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(checkpoint: Path, parent: Path, out: Path, *, share: float = 0.5) -> None:
    """Write a copy of a checkpoint with averaged weights.

    Args:
        checkpoint: The folder of the checkpoint.
        parent: The folder of the one that it was trained from.
        out: The folder to write.
        share: How much of the average the checkpoint is, 0..1; the rest is its parent.

    Raises:
        ValueError: The two have different weights, or one of them would be overwritten, or the share is not 0..1.
    """
    if out.resolve() in (checkpoint.resolve(), parent.resolve()):
        raise ValueError(f"{out} is one of the checkpoints to average; name another folder")
    if not 0 <= share <= 1:
        raise ValueError(f"the share must be 0..1, not {share}")
    ours, theirs = load_file(checkpoint / WEIGHTS), load_file(parent / WEIGHTS)
    shapes, others = ({name: t.shape for name, t in tensors.items()} for tensors in (ours, theirs))
    if shapes != others:
        differ = sorted(name for name in shapes | others if shapes.get(name) != others.get(name))
        raise ValueError(f"{checkpoint} and {parent} have different weights: {', '.join(differ[:3])} ...")
    shutil.copytree(checkpoint, out, dirs_exist_ok=True)
    mean = {name: theirs[name].float().lerp(t.float(), share).to(t.dtype).contiguous() for name, t in ours.items()}
    part = out / f"{WEIGHTS}.part"
    save_file(mean, part, metadata={"format": "pt"})
    part.replace(out / WEIGHTS)


def main() -> None:
    """Average two checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("parent", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of the checkpoint in the average, 0..1")
    args = parser.parse_args()
    average(args.checkpoint, args.parent, args.out, share=args.share)


if __name__ == "__main__":
    main()

"""Write a run's averaged weights as a checkpoint that `Segmenter("path")` opens: fp16, transformers' layout.

python -m train_small_sam3.export --run DIR --out CHECKPOINT --version 0.4
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from s3seg.sam3.sources import Concat, PositionGrid
from s3seg.sam3.transformers_layouts import TRANSFORMERS

from .concepts import Vocabulary, load_vocabulary
from .parents import save_extras
from .shapes import COLOUR_NAMES, PATTERNS, SHAPES
from .state import open_any

EXTRAS = "extras.safetensors"
COPIED = ("tokenizer.json", "tokenizer_config.json")


def export(
    run: Path, out: Path, *, name: str, version: str, threshold: float, dtype: torch.dtype = torch.float16,
    extras: Path | None = None,
) -> None:  # fmt: skip
    """Write weights, configuration with vocabulary, and tokenizer into a folder.

    Args:
        run: Folder of the run.
        out: Folder of the checkpoint.
        name: What the checkpoint is called.
        version: Which of that name.
        threshold: Score above which an instance is shown, chosen on the validation split.
        dtype: Precision of the weights.
        extras: File for the auxiliary heads and the momenta, with which another run can go on from the checkpoint. It
            is not part of the checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    average = torch.load(run / "state.pt", weights_only=True, map_location="cpu")["average"]
    tensors = {k: v.to(dtype).contiguous() for k, v in transformers_names(average).items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((run / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    vocabulary = load_vocabulary()
    config["s3seg"] |= {
        "name": name, "version": version, "threshold": threshold,
        "cls_on_text_prompts": False, "box_prompts": True, "drawings_only": True, "summary": summary(vocabulary),
        "vocabulary": known_phrases(vocabulary),
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for file in COPIED:
        shutil.copy(run / file, out / file)
    if extras is not None:
        learned = open_any(run)
        save_extras(extras, learned.heads, learned.momenta, learned.concepts)


def transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of our network as transformers does; fused ones are taken apart."""
    renamed: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        match TRANSFORMERS.source(ours):
            case Concat(names):
                renamed |= dict(zip(names, tensor.chunk(3), strict=True))
            case PositionGrid(name, _):
                renamed[name] = tensor.flatten(0, 1)[None]
            case str() as name:
                renamed[name] = tensor
            case other:
                raise ValueError(f"no way to write {ours} as {other}")
    return {name: tensor.clone() for name, tensor in renamed.items()}


def known_phrases(vocabulary: Vocabulary) -> list[str]:
    """Return all that may be asked for, in the singular; prompts are put together from these."""
    return [*sorted(vocabulary.by_word), "shape", *SHAPES, *COLOUR_NAMES, *PATTERNS]


def summary(vocabulary: Vocabulary) -> str:
    """Return one line on what the checkpoint knows."""
    return (
        f"knows {len(vocabulary)} everyday things drawn as pictograms, {len(SHAPES)} shapes, {len(COLOUR_NAMES)} "
        f"colours and {len(PATTERNS)} patterns; it does not know photographs"
    )


def main() -> None:
    """Export a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="s3seg-embedded")
    parser.add_argument("--version", default="0.7")
    parser.add_argument("--threshold", type=float, default=0.45)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--extras", type=Path, help="file for the heads and momenta that growing from it needs")
    args = parser.parse_args()
    export(
        args.run, args.out, name=args.name, version=args.version, threshold=args.threshold,
        dtype=getattr(torch, args.dtype), extras=args.extras,
    )  # fmt: skip


if __name__ == "__main__":
    main()

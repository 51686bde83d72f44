"""A run and what came of it, in a few files of limited size, to be taken home from a machine that is only lent.

    python -m train_small_sam3.bundle FOLDER --to DIR      # FOLDER/state.0-of-3 and so on -> DIR/run, and a checkpoint
    python -m train_small_sam3.bundle FOLDER --to DIR --evaluate 200 --processes 2      # and figures, grid and curve

The weights are kept as they are, their averages in fp16 (what a checkpoint holds) and the momenta in bf16, so a run
that goes on from a bundle is nearly the same as one that was not interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path

import torch

from .state import FILE as STATE

PART_BYTES = 15 << 20
MOST_PARTS = 4
_PREFIX = "state"


def pack(run: Path, folder: Path) -> list[Path]:
    """Write the run into files of at most `PART_BYTES` in a folder; they replace those of an earlier time.

    Raises:
        ValueError: The run needs more than `MOST_PARTS` files.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for file in sorted(run.iterdir()):
            if file.is_file() and file.name != STATE and file.suffix != ".part":
                archive.add(file, file.name)
        state = _light(torch.load(run / STATE, weights_only=True, map_location="cpu"))
        entry = tarfile.TarInfo(STATE)
        entry.size = len(state)
        archive.addfile(entry, io.BytesIO(state))
    data = content.getvalue()
    count = -(-len(data) // PART_BYTES)
    if count > MOST_PARTS:
        raise ValueError(f"the run takes {len(data) >> 20} MiB, more than {MOST_PARTS} files of {PART_BYTES >> 20} MiB")
    head = json.dumps({"sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n"
    names = [f"{_PREFIX}.{i}-of-{count}" for i in range(count)]
    for i, name in enumerate(names):
        (folder / f"{name}.part").write_bytes(head + data[i * PART_BYTES : (i + 1) * PART_BYTES])
    for old in _parts(folder):
        if old.name not in names:
            old.unlink()
    return [(folder / f"{name}.part").replace(folder / name) for name in names]


def unpack(folder: Path, run: Path) -> None:
    """Restore a run from a bundle.

    Raises:
        ValueError: The files are not all there, or not all of the same time.
    """
    parts = sorted(_parts(folder))
    heads, bodies = zip(*(part.read_bytes().split(b"\n", 1) for part in parts), strict=True) if parts else ((), ())
    data = b"".join(bodies)
    if len(set(heads)) != 1 or json.loads(heads[0])["sha256"] != hashlib.sha256(data).hexdigest():
        found = ", ".join(part.name for part in parts) or "none"
        raise ValueError(f"the files {_PREFIX}.* in {folder} are not one whole bundle (found: {found})")
    run.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(run, filter="data")
    state = torch.load(run / STATE, weights_only=True)
    torch.save(_as_fp32(state), run / STATE)


def _parts(folder: Path) -> list[Path]:
    return [file for file in folder.glob(f"{_PREFIX}.*-of-*") if file.suffix != ".part"]


def _light(state: dict) -> bytes:
    average = {name: tensor.half() for name, tensor in state["average"].items()}
    optimisers = [
        {**o, "state": {weight: {k: _shorter(v) for k, v in kept.items()} for weight, kept in o["state"].items()}}
        for o in state["optimisers"]
    ]
    stream = io.BytesIO()
    torch.save(state | {"average": average, "optimisers": optimisers}, stream)
    return stream.getvalue()


def _shorter(value: object) -> object:
    """Momenta in bf16; counts of steps, which are scalars, as they are."""
    return value.bfloat16() if isinstance(value, torch.Tensor) and value.ndim else value


def _as_fp32(value):
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _as_fp32(v) for k, v in value.items()}
    return [_as_fp32(v) for v in value] if isinstance(value, list) else value


def _evaluate(run: Path, checkpoint: Path, out: Path, *, scenes: int, processes: int) -> float:
    """Write figures, grid and curve into a folder; return the threshold."""
    from .curve import draw_curve
    from .evaluate import evaluate
    from .grid import draw_grid
    from .splits import SPLITS

    draw_curve(run, out / "curve.png")
    figures = evaluate(
        checkpoint, scenes=scenes, splits=SPLITS, threshold=None, dtype="float32", processes=processes
    )  # fmt: skip
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_grid(checkpoint, out / "grid.png", threshold=figures["threshold"])
    return figures["threshold"]


def main() -> None:
    """Restore a run, and export its checkpoint."""
    from .export import EXTRAS, export

    parser = argparse.ArgumentParser(description="Restore a run from the files that were brought home.")
    parser.add_argument("folder", type=Path, help="with state.0-of-3 and so on, and figures.json")
    parser.add_argument("--to", type=Path, required=True, help="folder for the run, the checkpoint and its extras")
    parser.add_argument("--version", default="0.7", help="of the checkpoint")
    parser.add_argument("--evaluate", type=int, metavar="SCENES", help="evaluate on as many scenes of each split")
    parser.add_argument("--processes", type=int, default=1, help="that evaluate")
    args = parser.parse_args()
    run, checkpoint = args.to / "run", args.to / "checkpoint"
    unpack(args.folder, run)
    figures = args.folder / "figures.json"
    threshold = json.loads(figures.read_text())["threshold"] if figures.exists() else 0.5
    given = {"name": "s3seg-embedded", "version": args.version, "extras": args.to / EXTRAS}
    export(run, checkpoint, threshold=threshold, **given)
    if args.evaluate:
        threshold = _evaluate(run, checkpoint, args.to, scenes=args.evaluate, processes=args.processes)
        export(run, checkpoint, threshold=threshold, **given)
    print(f"{args.to / 'run'} goes on with train --run; {args.to / 'checkpoint'} opens with Segmenter")


if __name__ == "__main__":
    main()

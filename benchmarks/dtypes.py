"""bfloat16 beside float32 on this CPU: the times, and what it changes on the test scenes of the embedded checkpoint."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

import s3seg
from benchmarks.timing import in_turns, show
from s3seg.results import masks
from s3seg.sam3.cpu_precision import bfloat16_is_native

ROOT = Path(__file__).parent.parent
SCENES = ROOT / "tests" / "data" / "scenes"
PICTURE = ROOT / "examples" / "pictures" / "street.png"
DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Print times, and the differences between the results."""
    start = time.perf_counter()
    native = bfloat16_is_native()
    taken = (time.perf_counter() - start) * 1000
    print(f"bfloat16 is {'' if native else 'not '}multiplied in hardware (found in {taken:.0f} ms)")
    matrices = {dtype: torch.ones(1024, 1024, dtype=getattr(torch, dtype)) for dtype in DTYPES}
    segs = {dtype: s3seg.Segmenter("embedded", device="cpu", dtype=dtype) for dtype in DTYPES}
    rows = {
        "multiply 1024 x 1024": in_turns({d: lambda m=m: m @ m for d, m in matrices.items()}, rounds=15),
        "one picture, one prompt": in_turns({d: lambda s=s: s.segment(PICTURE, "car") for d, s in segs.items()}),
    }
    show("The embedded checkpoint on this CPU", rows)
    _compare(segs)


def _compare(segs: dict[str, s3seg.Segmenter]) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    from train_small_sam3.metrics import compare, summarise

    truth = json.loads((SCENES / "scenes.json").read_text())
    outcomes: dict[str, list] = {dtype: [] for dtype in DTYPES}
    prompts = counts = orders = 0
    overlaps: list[float] = []
    score_changes: list[float] = []
    for scene in truth["scenes"]:
        pictures = {dtype: seg.encode(SCENES / scene["file"]) for dtype, seg in segs.items()}
        for prompt in scene["prompts"]:
            if prompt["boxes"]:
                continue
            wide, short = (
                segs[dtype].segment(pictures[dtype], prompt["text"], threshold=truth["threshold"]) for dtype in DTYPES
            )
            for dtype, result in zip(DTYPES, (wide, short), strict=True):
                expected = [masks.decode(masks.from_coco(one)) for one in prompt["masks"]]
                outcomes[dtype].append(compare(result.masks, np.array(expected, bool).reshape(-1, *truth["size"])))
            prompts += 1
            if len(wide) != len(short):
                counts += 1
            elif len(wide):
                overlap = masks.iou(list(wide.rles), list(short.rles))
                orders += bool((overlap.argmax(axis=1) != np.arange(len(wide))).any())
                overlaps += overlap.max(axis=1).tolist()
                score_changes += np.abs(np.sort(wide.scores) - np.sort(short.scores)).tolist()
    print(f"{prompts} prompts: {counts} with another number of instances, {orders} of the others in another order")
    print(
        f"mask IoU between the two: median {np.median(overlaps):.3f}, lowest {min(overlaps):.3f}; "
        f"scores differ by {np.median(score_changes):.4f} at the median, {max(score_changes):.4f} at most"
    )
    for dtype in DTYPES:
        figures = summarise(outcomes[dtype])
        print(f"{dtype}: mask F1 {figures.f1:.3f}, left empty {figures.left_empty:.3f}")


if __name__ == "__main__":
    main()

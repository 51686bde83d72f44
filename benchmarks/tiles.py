"""Small things on drawings of 4,000 x 4,000 pixels: how many are found with tiles and without, and at what cost.

``python -m benchmarks tiles``. Scenes have hundreds of shapes of 24 to 110 pixels, and some of 900 to 1,700 that fit
into no tile. A thing is found if its mask has an IoU of 0.5 or more with one that is found.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s3seg import Segmenter
from s3seg.inference.tile_plan import plan_tiles
from s3seg.results import masks
from s3seg.results.masks import RLE

SIZE = 4000
SMALL, LARGE = 750, 3
PROMPTS = ("red circle", "blue star", "green triangle")
TILE = 500
SCENES = 2


@dataclass(frozen=True)
class Scene:
    """A drawing and its things: by prompt, the mask of each and whether it is large."""

    image: np.ndarray
    things: dict[str, list[tuple[RLE, bool]]]


def draw(seed: int) -> Scene:
    """Draw a scene on slightly uneven paper; things do not overlap."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from train_small_sam3.shapes import draw_shape

    rng = np.random.default_rng(seed)
    paper = np.array([236, 233, 226]) + np.linspace(-8, 8, SIZE)[:, None, None]
    image = np.broadcast_to(paper, (SIZE, SIZE, 3)).astype(np.uint8)
    free = np.ones((SIZE, SIZE), bool)
    things: dict[str, list[tuple[RLE, bool]]] = {prompt: [] for prompt in PROMPTS}
    sides = [int(side) for side in [*rng.integers(900, 1700, LARGE), *rng.integers(24, 110, SMALL)]]
    for k, side in enumerate(sides):
        colour, shape = PROMPTS[k % len(PROMPTS)].split()
        patch = draw_shape(shape, colour, "solid", radius=side // 2, rng=rng)
        n = len(patch)
        for _ in range(200):
            y, x = (int(v) for v in rng.integers(6, SIZE - n - 6, 2))
            if free[y - 6 : y + n + 6, x - 6 : x + n + 6].all():
                alpha = patch[..., 3:].astype(np.float32) / 255
                window = image[y : y + n, x : x + n]
                image[y : y + n, x : x + n] = patch[..., :3] + window * (1 - alpha)
                free[y : y + n, x : x + n] = False
                rle = masks.encode(patch[..., 3] > 127, offset=(y, x), size=(SIZE, SIZE))
                things[f"{colour} {shape}"].append((rle, side >= 900))
                break
    return Scene(image, things)


def main() -> None:
    """Print a table for the scenes together."""
    seg = Segmenter("embedded", device="cpu")
    print(f"{SCENES} scenes; {', '.join(PROMPTS)}; input of {seg.image_size} pixels")
    print("| | F1 | precision | recall: small | on seams | away from seams | large | most of a prompt | s | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    scenes = [draw(seed) for seed in range(SCENES)]
    for tile in (None, TILE, "auto"):
        tiles = plan_tiles((SIZE, SIZE), tile or TILE, input_side=seg.image_size)
        seams = sorted({edge for _, x1, _, x2 in tiles for edge in (x1, x2) if 0 < edge < SIZE})
        name = "whole picture" if tile is None else f"{len(tiles)} tiles of {tiles[0][2]} pixels"
        counts = {key: [0, 0] for key in ("small", "seam", "inside", "large")}
        right = kept = most = 0
        start = time.perf_counter()
        for scene in scenes:
            for result in seg.segment(scene.image, list(PROMPTS), tile=tile):
                truth = scene.things[result.prompt]
                iou = masks.iou([rle for rle, _ in truth], list(result.rles))
                best = iou.max(axis=1, initial=0)
                kept, most = kept + len(result), max(most, len(result))
                right += int((iou.max(axis=0, initial=0) >= 0.5).sum())
                for (rle, is_large), overlap in zip(truth, best, strict=True):
                    x1, y1, x2, y2 = masks.box(rle)
                    crosses = any(x1 < edge < x2 or y1 < edge < y2 for edge in seams)
                    keys = ["large"] if is_large else ["small", "seam" if crosses else "inside"]
                    for key in keys:
                        counts[key][0] += overlap >= 0.5
                        counts[key][1] += 1
        seconds = (time.perf_counter() - start) / SCENES
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found, total = (counts["small"][k] + counts["large"][k] for k in (0, 1))
        precision, recall = right / max(kept, 1), found / total
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        shares = " | ".join(f"{a / b:.3f} of {b}" for a, b in counts.values())
        print(f"| {name} | {f1:.3f} | {precision:.3f} | {shares} | {most} | {seconds:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Clicks on one encoded picture: s3seg beside transformers, with the same random weights of full size.

Measures one click, ten clicks one after another, and ten objects at once, and the memory that ten objects take. Random
weights take the same time as trained ones. Needs 10 GB.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.sam3.tracker_oracle import image_tracker, random_video_model

from benchmarks.timing import in_turns, show
from s3seg.sam3.click_predictor import ClickPredictor, ClickQuery
from s3seg.sam3.load import load

OBJECTS = 10


@torch.inference_mode()
def main() -> None:
    """Measure, and print tables."""
    with tempfile.TemporaryDirectory() as folder:
        peer = image_tracker(random_video_model({"model_type": "sam3_video"}, Path(folder)))
        ours = load(folder)
    assert ours.clicks is not None
    side = ours.config.vision.image_size
    image = ours.encode_image(torch.rand(1, 3, side, side) * 2 - 1)
    assert image.patches is not None
    maps = [level.flatten(2).permute(2, 0, 1) for level in _neck(peer, image.patches)]
    embeddings = [
        level.permute(1, 2, 0).reshape(1, -1, size, size)
        for level, size in zip(maps, (4 * 72, 2 * 72, 72), strict=True)
    ]
    predictor = ClickPredictor(ours.clicks)
    predictor.features(image)  # once per picture, as the neck above
    places = [(0.05 + 0.09 * k, 0.5) for k in range(OBJECTS)]
    queries = [ClickQuery([place], [True]) for place in places]

    def theirs(points: list[tuple[float, float]]) -> None:
        pixels = torch.tensor(points).reshape(1, len(points), 1, 2) * side
        peer(image_embeddings=embeddings, input_points=pixels, input_labels=torch.ones(1, len(points), 1).long())

    rows = {
        "one click": in_turns(
            {
                "s3seg": lambda: predictor.predict(image, queries[:1], alternatives=True),
                "transformers": lambda: theirs(places[:1]),
            }
        ),
        "ten clicks, one by one": in_turns(
            {
                "s3seg": lambda: [predictor.predict(image, [query], alternatives=True) for query in queries],
                "transformers": lambda: [theirs([place]) for place in places],
            },
            rounds=3,
        ),
        "ten objects at once": in_turns(
            {
                "s3seg": lambda: predictor.predict(image, queries, alternatives=True),
                "transformers": lambda: theirs(places),
            },
            rounds=3,
        ),
    }
    show("Clicks on an encoded picture, full size, random weights, CPU, fp32", rows)
    ten = _peak_mb(lambda: predictor.predict(image, queries, alternatives=True))
    peers = _peak_mb(lambda: theirs(places))
    print(f"ten objects at once take {ten:.0f} MB beside weights and encoding; in transformers {peers:.0f} MB")
    parts = predictor.features(image)
    features = sum(part.nbytes for part in (parts.tokens, parts.positions, parts.half, parts.quarter)) / 2**20
    print(
        f"the encoding of a picture takes {image.nbytes / 2**20:.0f} MB, and its features for clicks {features:.0f} MB"
    )


def _peak_mb(work: Callable[[], object]) -> float:
    """Return by how many MB of 2^20 bytes the memory of this process grows at most during some work; Linux only."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # begin to measure the peak again
    before = _status_mb("VmRSS")
    work()
    return _status_mb("VmHWM") - before


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024


def _neck(peer: Any, patches: torch.Tensor) -> list[torch.Tensor]:
    """What transformers computes of the ViT's output once per picture, as its ``get_image_embeddings`` does."""
    levels, _ = peer.vision_encoder.neck(patches.permute(0, 3, 1, 2))
    quarter, half, coarse = levels[:3]
    coarse = coarse + peer.no_memory_embedding.view(1, -1, 1, 1)
    return [peer.mask_decoder.conv_s0(quarter), peer.mask_decoder.conv_s1(half), coarse]


if __name__ == "__main__":
    main()

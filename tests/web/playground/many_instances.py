"""A result with many instances on a large picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from s3seg.results import instances_file, masks
from tests.results.small_results import MODEL, Segmentation

SIZE = (3000, 4000)  # 12 megapixels
COUNT = 200


def squares() -> Segmentation:
    """Overlapping squares in rows of 20, each with a hole."""
    rles, boxes = [], []
    for k in range(COUNT):
        y, x = 20 + 290 * (k // 20), 20 + 195 * (k % 20)
        window = np.ones((260, 260), bool)
        window[100:160, 100:160] = False
        height, width = min(260, SIZE[0] - y), min(260, SIZE[1] - x)
        rles.append(masks.encode(window[:height, :width], offset=(y, x), size=SIZE))
        boxes.append(masks.box(rles[-1]))
    return Segmentation(
        prompt="leaf",
        size=SIZE,
        rles=tuple(rles),
        boxes=np.array(boxes),
        scores=np.linspace(0.95, 0.3, COUNT),
        presence=0.9,
        threshold=0.1,
        model=MODEL,
        timings={"image": 1.0, "prompt": 1.0},
    )


def picture() -> bytes:
    """A picture of that size, as a PNG."""
    file = io.BytesIO()
    Image.new("L", SIZE[::-1], 200).save(file, "PNG")
    return file.getvalue()


def instances() -> str:
    """The squares, as a service stores them."""
    return instances_file.write([squares()], threshold=0.25).decode()

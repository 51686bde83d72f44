"""A hundred masks on a picture of 12 megapixels, to RLE: s3seg beside pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as pycocotools_mask

from benchmarks.timing import in_turns, show
from s3seg.results import masks

SIZE = (3000, 4000)


def _as_theirs(rle: masks.RLE) -> Any:
    return masks.to_coco(rle)


def main() -> None:
    """Measure encoding and decoding."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:400, :400]
    blob = (yy - 200) ** 2 + (xx - 200) ** 2 < 180**2
    offsets = [(int(y), int(x)) for y, x in rng.integers(0, (SIZE[0] - 400, SIZE[1] - 400), (100, 2))]
    rles = [masks.encode(blob, offset=offset, size=SIZE) for offset in offsets]

    def full(offset: tuple[int, int]) -> np.ndarray:
        canvas = np.zeros(SIZE, np.uint8, order="F")
        canvas[offset[0] : offset[0] + 400, offset[1] : offset[1] + 400] = blob
        return canvas

    encoding = {
        "s3seg": lambda: [masks.encode(blob, offset=offset, size=SIZE) for offset in offsets],
        "pycocotools": lambda: [pycocotools_mask.encode(full(offset)) for offset in offsets],
    }
    decoding = {
        "s3seg": lambda: [masks.decode(rle) for rle in rles],
        "pycocotools": lambda: [pycocotools_mask.decode(_as_theirs(rle)) for rle in rles],
    }
    rows = {"encode 100": in_turns(encoding, rounds=3), "decode 100": in_turns(decoding, rounds=3)}
    show("A hundred masks of 0.1 megapixels on 12", rows)


if __name__ == "__main__":
    main()

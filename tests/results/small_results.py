"""Small results for tests: made of drawn masks, with no network behind them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from s3seg.results import masks
from s3seg.results.hints import Hint, HintKind
from s3seg.results.segmentation import ModelInfo, Segmentation

MODEL = ModelInfo(name="embedded", version="1", device="cpu", dtype="float32")


def result_of(stack: Any, **columns: Any) -> Segmentation:
    """A result whose instances have the masks of `stack` (N, H, W) bool, N > 0, and falling scores."""
    rles = tuple(masks.encode(np.asarray(mask, dtype=bool)) for mask in stack)
    given = {
        "prompt": "cat",
        "size": rles[0].size,
        "rles": rles,
        "boxes": np.array([masks.box(rle) for rle in rles]),
        "scores": np.linspace(0.9, 0.4, len(rles)),
        "presence": 0.98,
        "threshold": 0.3,
        "model": MODEL,
    }
    return Segmentation(**given | columns)


def empty_result(size: tuple[int, int] = (4, 5), **columns: Any) -> Segmentation:
    """A result that found nothing."""
    nothing: dict[str, Any] = {"rles": (), "boxes": np.zeros((0, 4)), "scores": np.zeros(0)}
    return result_of([np.zeros(size)], **nothing | columns)


def discs(height: int, width: int, *circles: tuple[float, float, float]) -> np.ndarray:
    """(N, H, W) bool, a disc for each (y, x, radius)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([(y - cy) ** 2 + (x - cx) ** 2 <= r**2 for cy, cx, r in circles])


@st.composite
def any_result(draw: st.DrawFn) -> Segmentation:
    """Any result: empty masks, equal scores, odd prompts and awkward float32 values included."""
    size = (draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    count = draw(st.integers(0, 4))
    stack = draw(npst.arrays(np.bool_, (count, *size)))
    text = st.text(max_size=8)
    unit = st.floats(0, 1, width=32)
    kinds = st.sampled_from(get_args(HintKind))
    hints = st.builds(Hint, kinds, text, st.lists(text, max_size=2).map(tuple))
    return empty_result(
        size,
        prompt=draw(text),
        rles=tuple(masks.encode(mask) for mask in stack),
        boxes=draw(npst.arrays(np.float32, (count, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32))),
        scores=draw(npst.arrays(np.float32, count, elements=unit)),
        presence=draw(st.floats(0, 1)),
        threshold=draw(st.floats(0, 1)),
        timings=draw(st.dictionaries(text, st.floats(0, 1e6), max_size=3)),
        model=ModelInfo(*(draw(text) for _ in range(4)), summary=draw(st.none() | text)),
        hints=draw(st.lists(hints, max_size=2).map(tuple)),
        source=draw(st.none() | text),
        image_id=draw(st.none() | text),
    )

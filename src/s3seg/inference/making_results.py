"""Turn what a network predicted into results. CPU work; may run on any thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from s3seg.images import LoadedImage
from s3seg.inference.network import Network
from s3seg.results import masks
from s3seg.results.hints import Hint
from s3seg.results.segmentation import Segmentation

if TYPE_CHECKING:
    from s3seg.sam3.click_predictor import ClickedMasks
    from s3seg.sam3.predictor import Detections


def make_result(
    network: Network,
    size: tuple[int, int],
    prompt: str,
    detections: Detections,
    *,
    threshold: float,
    timings: Mapping[str, float],
    photograph: bool = False,
    picture: LoadedImage | None = None,
    image_id: str | None = None,
) -> Segmentation:
    """Turn the detections of one prompt into a result. CPU work; may run on any thread.

    Args:
        network: The network that predicted them.
        size: (height, width) of the picture; masks are made at this size.
        prompt: The prompt.
        detections: What the network predicted; if their logits are still being copied, this waits for them.
        threshold: The threshold that was applied to them.
        timings: Milliseconds of the steps before; the time for the masks is added as "masks".
        photograph: `EncodedImage.photograph` of the picture.
        picture: To be kept in the result, with its source.
        image_id: Identifies the picture; see `Segmentation`.
    """
    start = time.perf_counter()
    height, width = size
    rles = detections.rles(size)
    return Segmentation(
        prompt=prompt,
        size=size,
        rles=rles,
        boxes=detections.boxes_xyxy * np.array([width, height, width, height], np.float32),
        scores=detections.scores,
        presence=detections.presence,
        threshold=threshold,
        model=network.model,
        timings={**timings, "masks": (time.perf_counter() - start) * 1000},
        notes=() if picture is None else picture.notes,
        hints=network.hints(prompt, photograph=photograph),
        source=None if picture is None else picture.source,
        image=None if picture is None else picture.pixels,
        image_id=image_id,
    )


def make_click_result(
    network: Network,
    size: tuple[int, int],
    prompt: str,
    found: ClickedMasks,
    *,
    timings: Mapping[str, float],
    picture: LoadedImage | None = None,
    image_id: str | None = None,
) -> Segmentation:
    """Turn the masks of one object into a result, as `make_result` does. Scores are predicted IoUs.

    Args:
        network: The network that predicted them.
        size: (height, width) of the picture; masks are made at this size.
        prompt: What the result calls the object.
        found: In the CPU's memory.
        timings: Milliseconds of the steps before; the time for the masks is added as "masks".
        picture: To be kept in the result, with its source.
        image_id: Identifies the picture; see `Segmentation`.
    """
    start = time.perf_counter()
    rles = found.rles(size)
    return Segmentation(
        prompt=prompt,
        size=size,
        rles=rles,
        boxes=np.array([masks.box(rle) for rle in rles], np.float32),
        scores=found.ious,
        presence=found.presence,
        threshold=0.0,
        model=network.model,
        timings={**timings, "masks": (time.perf_counter() - start) * 1000},
        notes=() if picture is None else picture.notes,
        source=None if picture is None else picture.source,
        image=None if picture is None else picture.pixels,
        image_id=image_id,
    )


def name_concept(network: Network, result: Segmentation, name: str) -> Segmentation:
    """Return the result of a concept under its name, with the hint that belongs to concepts."""
    return replace(result, prompt=name, hints=(*result.hints, Hint("other", network.concept_hint)))

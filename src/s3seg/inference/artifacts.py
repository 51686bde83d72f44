"""From what a task's prompts found to what is stored and told of it. Pure; work for the CPU."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from s3seg.api.gpu import PredictResponse
from s3seg.results import masks
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.model import Outcome, Task
from s3seg.tasks.object_keys import new_result_key

INSTANCES_FORMAT = "s3seg.instances/1"
"""``format`` of the stored list of instances: ``threshold`` (the default one), and in ``results`` for each prompt
what `Segmentation.to_dict` gives, with every instance above 0.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """A prediction, ready to be stored.

    Attributes:
        objects: Bodies by key, to be stored before the outcome is told.
        outcome: What the task's row is told.
    """

    objects: dict[str, bytes]
    outcome: Outcome


def make_artifacts(
    task: Task, results: Sequence[Segmentation], *, threshold: float, url: Callable[[str], str]
) -> Artifacts:
    """Make the label maps, the list of instances and the metadata of a task.

    The task's own mask combines its prompts: where instances overlap, the one of higher score wins. A task of
    several prompts also has a mask for each.

    Args:
        task: What was asked.
        results: One for each prompt, in order, with every instance above 0.1.
        threshold: Instances above it make masks, labels and confidence.
        url: The public address of a key.
    """
    shown = [_above(result, threshold) for result in results]
    objects: dict[str, bytes] = {}

    def store(body: bytes, content_type: str) -> str:
        key = new_result_key(task.user_id, task.task_id, content_type)
        objects[key] = body
        return url(key)

    mask_url = store(_label_map(shown), "image/png")
    instances_url = store(_instances(results, threshold), "application/json")
    responses = [
        PredictResponse(
            task_id=task.task_id,
            mask_url=mask_url if len(shown) == 1 else store(_label_map([result]), "image/png"),
            labels=[result.prompt] if len(result) else [],
            inference_time_ms=round(result.timings["prompt"] + result.timings["image"] / len(shown), 3),
            confidence=_confidence(result),
        )
        for result in shown
    ]
    metadata: dict[str, Any] = {
        "inference_time_ms": round(sum(one.inference_time_ms for one in responses), 3),
        "confidence": max(one.confidence for one in responses),
        "model_version": results[0].model.version,
        "model": asdict(results[0].model),
        "threshold": threshold,
        "instances_url": instances_url,
        "instance_count": sum(len(result) for result in shown),
    }
    if len(shown) > 1:
        metadata["prompts"] = [one.model_dump() for one in responses]
    if hints := [result.hint for result in results if result.hint]:
        metadata["hint"] = "; ".join(dict.fromkeys(hints))
    outcome = Outcome(
        mask_image_url=mask_url,
        labels=tuple(dict.fromkeys(result.prompt for result in shown if len(result))),
        metadata=metadata,
        object_keys=tuple(objects),
    )
    return Artifacts(objects=objects, outcome=outcome)


def _above(result: Segmentation, threshold: float) -> Segmentation:
    count = int((result.scores > threshold).sum())  # sorted: the best come first
    return replace(result[:count], threshold=threshold)


def _confidence(result: Segmentation) -> float:
    return float(result.scores[0]) if len(result) else 0.0


def _label_map(results: Sequence[Segmentation]) -> bytes:
    """PNG: 0 background, k the k-th instance by score over all results; 16 bits beyond 255 instances."""
    scored = [(score, rle) for result in results for score, rle in zip(result.scores, result.rles, strict=True)]
    scored.sort(key=lambda pair: -pair[0])
    return _png(masks.label_map([rle for _, rle in scored], results[0].size))


def _png(grey: np.ndarray) -> bytes:
    """Write a greyscale PNG of 8 or 16 bits.

    Label maps are runs of equal bytes: without filters and with zlib's run-length strategy they are written in a third
    of the time that Pillow takes to choose a filter for each row, and no larger.
    """
    height, width = grey.shape
    depth = grey.dtype.itemsize
    rows = np.zeros((height, 1 + depth * width), np.uint8)  # a row begins with its filter: 0, none
    rows[:, 1:] = grey.astype(grey.dtype.newbyteorder(">")).view(np.uint8)
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * depth, 0, 0, 0, 0)),
        (b"IDAT", deflate.compress(rows.data) + deflate.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _instances(results: Sequence[Segmentation], threshold: float) -> bytes:
    body = {
        "format": INSTANCES_FORMAT,
        "threshold": threshold,
        "results": [result.to_dict() for result in results],
    }
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

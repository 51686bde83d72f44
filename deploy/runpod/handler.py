"""A serverless worker for RunPod: one picture and some prompts in, instances with their masks out.

The input of a job::

    {"image": "<base64 of a JPEG, PNG or WebP>", "prompts": ["cat", "dog"], "threshold": 0.5}

The output has one result for each prompt, in the JSON form of `Segmentation.to_dict()`: instances with score, box and
mask as COCO RLE. RunPod authenticates, counts and limits the jobs; this keeps nothing, and downloads nothing that a job
names.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

import s3seg

MOST_PROMPTS = 16
MOST_BYTES = 10_000_000
_segmenter: s3seg.Segmenter | None = None


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer a job; what is wrong with its input is told in ``error``, which RunPod shows to whoever sent it."""
    asked = job.get("input") or {}
    try:
        threshold = float(asked.get("threshold", 0.5))
        results = segmenter().segment(_picture(asked), _prompts(asked), threshold=threshold)
    except (s3seg.S3segError, ValueError, TypeError) as err:
        return {"error": str(err)}
    return {"results": [result.to_dict() for result in results]}


def segmenter() -> s3seg.Segmenter:
    """Return the segmenter, whose weights are loaded when it is first used; a worker is asked many times."""
    global _segmenter
    if _segmenter is None:
        _segmenter = s3seg.Segmenter(os.environ.get("S3SEG_CHECKPOINT", "litetext"))
    return _segmenter


def _picture(asked: dict[str, Any]) -> bytes:
    if not isinstance(text := asked.get("image"), str) or len(text) > MOST_BYTES * 4 // 3 + 4:
        raise ValueError("send the picture as base64 in image, 10 MB at most")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as err:
        raise ValueError(f"image is not base64: {err}") from err


def _prompts(asked: dict[str, Any]) -> list[str]:
    prompts = asked.get("prompts")
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= MOST_PROMPTS:
        raise ValueError(f"prompts must be a list of 1 to {MOST_PROMPTS} texts")
    return prompts


if __name__ == "__main__":
    import runpod

    segmenter()  # before the first job, so that the cold start is not part of it
    runpod.serverless.start({"handler": handler})

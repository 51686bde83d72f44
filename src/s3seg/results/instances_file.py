"""The instances file: the JSON in which a service stores the results of a task.

It holds every instance that scores above `MIN_SCORE`, so that whoever reads it can choose another threshold without
running the network again, and the threshold that the checkpoint recommends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from s3seg.errors import InvalidRequestError, S3segError
from s3seg.results.segmentation import Segmentation

FORMAT = "s3seg.instances/1"
MIN_SCORE = 0.1
"""Instances that score at or below this are not stored."""


def write(results: Sequence[Segmentation], *, threshold: float) -> bytes:
    """Write the results of a task, one for each prompt.

    Args:
        results: With every instance above `MIN_SCORE`.
        threshold: The score above which an instance counts, unless the reader chooses another threshold.
    """
    body = {"format": FORMAT, "threshold": threshold, "results": [result.to_dict() for result in results]}
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def read(content: bytes, *, threshold: float | None = None, max_instances: int | None = None) -> list[Segmentation]:
    """Read what `write` wrote.

    Args:
        content: The file.
        threshold: Keep instances that score above this, `MIN_SCORE`..1; by default the threshold in the file.
        max_instances: Keep at most this many instances of each result, the best; None keeps all.

    Returns:
        One result for each prompt, with its ``threshold`` set to the one applied.

    Raises:
        S3segError: The content is not an instances file, or is damaged.
        InvalidRequestError: The threshold is not a number between 0 and 1.
    """
    try:
        stored = json.loads(content)
        if stored["format"] != FORMAT:
            raise S3segError(f"the instances file has format {stored['format']!r:.60}, expected {FORMAT!r}")
        recommended = float(stored["threshold"])
        results = [Segmentation.from_dict(one) for one in stored["results"]]
    except (ValueError, KeyError, TypeError) as err:
        raise S3segError(f"the instances file cannot be read: {type(err).__name__}: {err}") from err
    threshold = recommended if threshold is None else float(threshold)
    if not 0 <= threshold <= 1:
        raise InvalidRequestError(f"the threshold must be a score between 0 and 1, got {threshold}")
    return [cut(result, threshold, max_instances=max_instances) for result in results]


def cut(result: Segmentation, threshold: float, *, max_instances: int | None = None) -> Segmentation:
    """Keep the instances that score above a threshold.

    The comparison is in float32, the type of the scores, as in the network: cutting later keeps the same instances as
    asking the network with this threshold.

    Args:
        result: With every instance above a lower threshold.
        threshold: 0..1; becomes the ``threshold`` of the returned result.
        max_instances: Keep at most this many, the best; None keeps all.
    """
    count = int(np.count_nonzero(result.scores > np.float32(threshold)))  # sorted: the best come first
    count = count if max_instances is None else min(count, max_instances)
    return replace(result[:count], threshold=threshold)

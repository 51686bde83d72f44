"""The instances file: the JSON in which a service stores the results of a task.

It holds every instance that scores above `MIN_SCORE`, so that whoever reads it can choose another threshold without
running the network again, and the threshold that the checkpoint recommends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from s3seg.errors import InvalidRequestError, S3segError
from s3seg.results import json_form
from s3seg.results.segmentation import Segmentation, cut

MIN_SCORE = 0.1
"""Instances that score at or below this are not stored."""


def write(results: Sequence[Segmentation], *, threshold: float) -> bytes:
    """Write the results of a task, one for each prompt.

    Args:
        results: With every instance above `MIN_SCORE`.
        threshold: The score above which an instance counts, unless the reader chooses another threshold.
    """
    body = {
        "format": json_form.INSTANCES_FORMAT,
        "threshold": threshold,
        "results": [result.to_dict() for result in results],
    }
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
        stored, recommended = json_form.read_instances(json.loads(content))
        results = [Segmentation.from_dict(one) for one in stored]
    except (ValueError, KeyError, TypeError) as err:
        raise S3segError(f"the instances file cannot be read: {type(err).__name__}: {err}") from err
    threshold = recommended if threshold is None else float(threshold)
    if not 0 <= threshold <= 1:
        raise InvalidRequestError(f"the threshold must be a score between 0 and 1, got {threshold}")
    return [cut(result, threshold, max_instances=max_instances) for result in results]

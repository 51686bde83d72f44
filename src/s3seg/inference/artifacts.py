"""Turn the results of a task into what is stored for it: label maps, the instances file, and metadata. CPU work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from s3seg.api.gpu import PredictResponse
from s3seg.results import instances_file
from s3seg.results.hints import joined
from s3seg.results.label_map import encode_label_map
from s3seg.results.segmentation import Segmentation, cut
from s3seg.tasks.model import Outcome, Task
from s3seg.tasks.object_keys import new_result_key
from s3seg.tasks.visual import tile_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """Everything that a finished prediction stores.

    Attributes:
        objects: Contents by object key; store them before the outcome.
        outcome: The part that is stored in the task itself.
    """

    objects: dict[str, bytes]
    outcome: Outcome


def make_artifacts(
    task: Task,
    results: Sequence[Segmentation],
    *,
    threshold: float,
    prompt_kinds: Sequence[str],
    url: Callable[[str], str],
) -> Artifacts:
    """Make the label maps, the instances file and the metadata of a task.

    The task's label map has the instances of all its prompts; where they overlap, the higher score is visible. A task
    with several prompts also has a label map for each.

    Args:
        task: The task.
        results: One for each prompt, in order, with every instance above `instances_file.MIN_SCORE`.
        threshold: Instances that score above it are in label maps, labels, counts and confidence.
        prompt_kinds: What the checkpoint can be asked by, for clients that offer no more than that.
        url: Returns the public address of an object key.
    """
    shown = [cut(result, threshold) for result in results]
    objects: dict[str, bytes] = {}

    def store(body: bytes, content_type: str) -> str:
        key = new_result_key(task.user_id, task.task_id, content_type)
        objects[key] = body
        return url(key)

    mask_url = store(encode_label_map(shown), "image/png")
    instances_url = store(instances_file.write(results, threshold=threshold), "application/json")
    responses = [
        PredictResponse(
            task_id=task.task_id,
            mask_url=mask_url if len(shown) == 1 else store(encode_label_map([result]), "image/png"),
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
        "prompt_kinds": list(prompt_kinds),
        "threshold": threshold,
        "instances_url": instances_url,
        "instance_count": sum(len(result) for result in shown),
    }
    if (tile := tile_of(task.visual)) is not None:
        metadata["tile"] = tile
    if len(shown) > 1:
        metadata["prompts"] = [one.model_dump() for one in responses]
    if hints := tuple(dict.fromkeys(hint for result in results for hint in result.hints)):
        metadata["hint"] = joined(hints)
        metadata["hints"] = [asdict(hint) for hint in hints]
    outcome = Outcome(
        mask_image_url=mask_url,
        labels=tuple(dict.fromkeys(result.prompt for result in shown if len(result))),
        metadata=metadata,
        object_keys=tuple(objects),
    )
    return Artifacts(objects=objects, outcome=outcome)


def _confidence(result: Segmentation) -> float:
    return float(result.scores[0]) if len(result) else 0.0

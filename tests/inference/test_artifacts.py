"""What a finished task stores beside the masks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np

from s3seg.inference.artifacts import make_artifacts
from s3seg.results import instances_file
from s3seg.results.hints import Hint
from s3seg.tasks.model import Task, TaskStatus
from tests.results.small_results import result_of

PHOTOGRAPH = Hint("photograph", "this looks like a photograph")
UNKNOWN = Hint("unknown_words", "'xylophone' is not known", ("xylophone",))


MASK = np.ones((1, 4, 5), bool)
TIMINGS = {"prompt": 1.0, "image": 1.0}


def task() -> Task:
    now = datetime.now(UTC)
    return Task(
        task_id=str(uuid4()),
        user_id=str(uuid4()),
        project_id=None,
        image_id=None,
        source_image_url="http://x/picture.png",
        prompts=("cat",),
        status=TaskStatus.PROCESSING,
        created_at=now,
        updated_at=now,
        deadline=now,
    )


def test_each_hint_is_stored_once_for_the_page_and_with_its_result_for_the_client() -> None:
    results = [
        result_of(MASK, timings=TIMINGS, hints=(PHOTOGRAPH,)),
        result_of(MASK, timings=TIMINGS, hints=(PHOTOGRAPH, UNKNOWN)),
    ]
    made = make_artifacts(task(), results, threshold=0.5, prompt_kinds=["words"], url=lambda key: f"http://x/{key}")
    metadata = json.loads(json.dumps(made.outcome.metadata))
    assert metadata["hint"] == "this looks like a photograph; 'xylophone' is not known"
    assert [hint["kind"] for hint in metadata["hints"]] == ["photograph", "unknown_words"]
    assert metadata["hints"][1]["words"] == ["xylophone"]
    (stored,) = [body for key, body in made.objects.items() if key.endswith(".json")]
    assert [one.hints for one in instances_file.read(stored)] == [one.hints for one in results]


def test_without_hints_the_metadata_has_neither_field() -> None:
    made = make_artifacts(task(), [result_of(MASK, timings=TIMINGS)], threshold=0.5, prompt_kinds=["words"], url=str)
    assert not {"hint", "hints"} & made.outcome.metadata.keys()

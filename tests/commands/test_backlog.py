"""`s3seg admin backlog`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from s3seg.app.parts import Parts
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity, NewImage
from s3seg.testing.harness import outcome_for
from tests.commands.running import Command

USER = "0d0f5f0e-7f8b-4b55-9d43-0a3a6f8f7c11"


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3SEG_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def _one_of_each() -> None:
    """One task waits, a worker holds one, and six were done."""

    async def work() -> None:
        parts = Parts()
        caller = Identity(user_id=USER, tier=Tier.ENTERPRISE)
        store, queue = parts.task_store, parts.task_queue
        key = new_image_key(USER, "image/png")
        image = await store.register_image(
            caller, NewImage(object_key=key, content_type="image/png", size_bytes=9, width=4, height=3)
        )
        for _ in range(8):
            await store.submit(caller, TaskRequest(image_url=image.image_url, prompts=("cat",)))
        claims = await queue.claim_batch("box-1", limit=7, lease_s=60)
        for claim in claims[1:]:
            await queue.finish(claim.lease, outcome_for(claim.task))
        await parts.aclose()

    asyncio.run(work())


@pytest.mark.usefixtures("_one_of_each")
def test_it_tells_what_waits_and_runs(s3seg: Command) -> None:
    done = s3seg("admin", "backlog")
    assert done.exit_code == 0
    assert "waiting   1 tasks, the oldest for " in done.stdout
    assert "running   1 tasks on 1 workers" in done.stdout
    assert "done      0.02 tasks a second" in done.stdout
    assert "needed" not in done.stdout


@pytest.mark.usefixtures("_one_of_each")
def test_it_plans_workers_for_a_wished_wait(s3seg: Command) -> None:
    done = s3seg("admin", "backlog", "--wait", "10", "--rate", "0.06", "--price", "0.5")
    assert "needed    2 workers at 0.06 tasks a second each, to do every task within 10 s, which cost 1 an hour" in (
        done.stdout
    )
    planned = json.loads(s3seg("admin", "backlog", "--wait", "10", "--json").stdout)
    assert planned["rate_per_worker"] == planned["done_per_s"] == 0.02, "as measured: six in five minutes by one"
    assert planned["workers_needed"] == 6, "0.02 a second arrive, and 0.1 a second for the one that waits"
    assert (planned["waiting"], planned["cost_per_hour"]) == (1, None)


def test_without_any_work_the_rate_must_be_told(s3seg: Command) -> None:
    done = s3seg("admin", "backlog", "--wait", "10")
    assert done.exit_code == 2
    assert "pass --rate" in done.stderr
    assert "needed    0 workers" in s3seg("admin", "backlog", "--wait", "10", "--rate", "2").stdout


def test_a_rate_without_a_wait_is_refused(s3seg: Command) -> None:
    done = s3seg("admin", "backlog", "--rate", "2")
    assert done.exit_code == 2
    assert "--wait" in done.stderr

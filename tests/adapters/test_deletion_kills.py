"""Deletes an account in processes that are killed in the middle, then checks what is left and what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3seg.app import Parts
from s3seg.app.settings import Settings
from s3seg.tasks.maintenance import remove_ended
from s3seg.tasks.model import Outcome, TaskRequest
from s3seg.tasks.object_keys import new_image_key, new_result_key
from s3seg.tasks.records import Identity, NewImage

pytestmark = pytest.mark.anyio
ANN = Identity(user_id="0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f")
BEN = Identity(user_id="5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11")

# dies when it deletes for the n-th time: before it deletes, so that rows are gone and objects are not
_DELETE = """
import asyncio, os, signal, sys
from s3seg.app import Parts
from s3seg.tasks.maintenance import remove_ended

async def main(user_id, deletions):
    parts = Parts()
    await parts.accounts.close(user_id)
    delete = parts.objects.delete
    done = 0

    async def counted(key):
        nonlocal done
        if done == deletions:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        await delete(key)

    parts.objects.delete = counted
    await remove_ended(parts.objects, parts.accounts)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def fill(parts: Parts, user: Identity) -> None:
    for number in range(3):
        key = new_image_key(user.user_id, "image/png")
        await parts.objects.put(key, b"the same picture for both")
        image = await parts.task_store.register_image(
            user, NewImage(object_key=key, content_type="image/png", size_bytes=25, width=1, height=1)
        )
        request = TaskRequest(image_url=image.image_url, prompts=("a", "b"))
        task = (await parts.task_store.submit(user, request)).task
        if number == 2:
            continue  # it is left unfinished
        (claim,) = await parts.task_queue.claim_batch("w", limit=1, lease_s=60)
        mask = new_result_key(user.user_id, task.task_id, "image/png")
        await parts.objects.put(mask, b"mask")
        outcome = Outcome(mask_image_url=parts.objects.url(mask), labels=(), metadata={}, object_keys=(mask,))
        await parts.task_queue.finish(claim.lease, outcome)


async def test_an_account_is_gone_whole_though_its_deletion_is_killed_again_and_again(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, rate_limits="off")  # type: ignore[call-arg]
    parts = Parts(settings)
    await fill(parts, ANN)
    (left,) = await parts.task_queue.claim_batch("w", limit=10, lease_s=60)
    await fill(parts, BEN)
    bens = {info.key async for info in parts.objects.list(f"users/{BEN.user_id}/")}
    environment = {
        **os.environ,
        "S3SEG_DATA_DIR": str(tmp_path),
        "S3SEG_RATE_LIMITS": "off",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    for deletions in (0, 0, 2):
        command = [sys.executable, "-c", _DELETE, ANN.user_id, str(deletions)]
        assert subprocess.run(command, env=environment, cwd=tmp_path).returncode == -signal.SIGKILL
    # the rows were gone with the first kill, and the mark stayed
    assert (await parts.task_store.list_tasks(ANN)).total == 0
    assert len([info async for info in parts.objects.list(f"users/{ANN.user_id}/")]) == 3

    removed = await remove_ended(parts.objects, parts.accounts)
    assert (removed.objects, removed.accounts) == (3, 1)
    assert [info.key async for info in parts.objects.list(f"users/{ANN.user_id}/")] == []
    ledger = await parts.accounts.ledger(ANN.user_id)
    assert sorted((entry.delta, entry.reason) for entry in ledger) == [
        (-2, "segment"), (-2, "segment"), (-2, "segment"), (2, "refund"), (10, "grant"),
    ]  # fmt: skip
    assert left.task.task_id == next(entry.task_id for entry in ledger if entry.reason == "refund")
    assert {info.key async for info in parts.objects.list(f"users/{BEN.user_id}/")} == bens
    assert (await parts.task_store.list_tasks(BEN)).total == 3
    await parts.aclose()

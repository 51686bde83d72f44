"""Kills processes that share a data directory at random moments, then checks that all data is consistent."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3seg.app import Parts
from s3seg.app.settings import Settings
from s3seg.tasks.limits import RATE_LIMITS, Action, Tier
from s3seg.tasks.maintenance import collect_garbage, reap_all
from s3seg.tasks.model import Failure, TaskStatus
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity, NewImage

SCRIPT = Path(__file__).parent / "crash_process.py"
CREDITS = 1_000_000


class Processes:
    """Processes that report to log files what was done; the files remain after the processes are killed."""

    def __init__(self, folder: Path, roles: list[list[str]], *, rate_limits: str = "off") -> None:
        self._folder = folder
        self._rate_limits = rate_limits
        self._roles = roles
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: list[Path] = []
        for number in range(len(roles)):
            self.start(number)

    def start(self, number: int) -> None:
        log = self._folder / f"{len(self._logs)}.log"
        self._logs.append(log)
        environment = {
            **os.environ,
            "S3SEG_DATA_DIR": str(self._folder / "data"),
            "S3SEG_RATE_LIMITS": self._rate_limits,
            "S3SEG_DATABASE_TIMEOUT_S": "60",  # do not fail on a busy machine
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        with log.open("wb") as out:
            self._running[number] = subprocess.Popen(
                [sys.executable, str(SCRIPT), *self._roles[number]], stdout=out, env=environment
            )
        while b"\n" not in log.read_bytes():  # wait until it has started to work
            assert self._running[number].poll() is None, "a process exited by itself"
            time.sleep(0.01)

    def kill_one(self, number: int) -> None:
        process = self._running.pop(number)
        assert process.poll() is None, "a process exited by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        for number in list(self._running):
            self.kill_one(number)

    def reports(self, kind: str) -> list[list[str]]:
        lines = [line for log in self._logs for line in log.read_text().split("\n")[:-1]]
        return [words[1:] for words in map(str.split, lines) if words[0] == kind]


def kill_repeatedly(number: int, folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    settings = Settings(data_dir=folder / "data", rate_limits="off", database_timeout_s=60)
    users = asyncio.run(create_users(settings, 2))
    roles = [["submit", user.user_id, url] for user, url in users] + [["work", "w1"], ["work", "w2"]]
    processes = Processes(folder, roles)
    try:
        for _ in range(number):
            time.sleep(rng.uniform(0, 0.15))
            victim = rng.randrange(len(roles))
            processes.kill_one(victim)
            processes.start(victim)
    finally:
        processes.kill_all()
    asyncio.run(check_consistency(settings, users, processes))


async def create_users(settings: Settings, count: int) -> list[tuple[Identity, str]]:
    parts = Parts(settings)
    users = []
    for _ in range(count):
        user = Identity(user_id=str(uuid.uuid4()))
        account = await parts.accounts.ensure(user.user_id, tier=Tier.PRO)
        await parts.accounts.adjust(user.user_id, CREDITS - account.credits)
        image = NewImage(
            object_key=new_image_key(user.user_id, "image/png"),
            content_type="image/png",
            size_bytes=1,
            width=1,
            height=1,
        )
        users.append((user, (await parts.task_store.register_image(user, image)).image_url))
    await parts.aclose()
    return users


async def check_consistency(settings: Settings, users: list[tuple[Identity, str]], processes: Processes) -> None:
    database = sqlite3.connect(settings.data_dir / "tasks.sqlite3")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = database.execute("SELECT task_id, idempotency_key, status, prompts FROM tasks").fetchall()
    keys = Counter(key for _, key, _, _ in rows)
    database.close()
    known = {task_id: key for task_id, key, _, _ in rows}

    accepted = processes.reports("accepted")
    assert accepted
    for task_id, key in accepted:
        assert known.get(task_id) == key, "an accepted task was lost"
    assert set(keys.values()) == {1}, "two tasks have the same idempotency key"

    parts = Parts(settings)
    finished = processes.reports("finished")
    assert finished
    for task_id, mask in finished:
        task = await parts.task_queue.get_task(task_id)
        assert (task.status, task.object_keys) == (TaskStatus.DONE, (mask,))
    assert max(Counter(task_id for task_id, _ in finished).values()) == 1, "finished twice"

    await end_all_tasks(parts)
    for user, _ in users:
        ledger = await parts.accounts.ledger(user.user_id)
        account = await parts.task_store.account(user)
        assert account.credits == sum(row.delta for row in ledger) >= 0
        moved = Counter((row.task_id, row.reason) for row in ledger if row.task_id)
        assert set(moved.values()) <= {1}, "debited or refunded twice"
        page = await parts.task_store.list_tasks(user, limit=100)
        assert page.total == sum(reason == "segment" for _, reason in moved)
        spent = 0
        for task_id in {task_id for task_id, _ in moved}:
            assert task_id is not None
            task = await parts.task_queue.get_task(task_id)
            assert task.ended
            assert ((task_id, "refund") in moved) == (task.status == TaskStatus.ERROR)
            spent += task.cost * (task.status == TaskStatus.DONE)
        assert account.credits == CREDITS - spent

    await collect_garbage(parts.objects, parts.accounts, before=datetime.now(UTC) + timedelta(days=1))
    left = {info.key async for info in parts.objects.list("users/")}
    masks = set()
    for task_id in known:
        task = await parts.task_queue.get_task(task_id)
        for mask in task.object_keys:
            assert await parts.objects.get(mask) == task_id.encode() * 2000
            masks.add(mask)
    assert left == masks, "garbage was kept, or a result was removed"
    assert list((settings.data_dir / "objects" / ".partial").iterdir()) == []
    await parts.aclose()


async def end_all_tasks(parts: Parts) -> None:
    """Claim and fail the tasks that the killed workers held, once their leases (of one second) have expired."""
    while True:
        await reap_all(parts.task_queue)
        claims = await parts.task_queue.claim_batch("last", limit=100, lease_s=30)
        for claim in claims:
            await parts.task_queue.fail(claim.lease, Failure(code="INFERENCE_FAILED", message="the end"))
        if not claims and not await live_tasks(parts):
            return
        await asyncio.sleep(0.05)


async def live_tasks(parts: Parts) -> int:
    database = sqlite3.connect(parts.settings.data_dir / "tasks.sqlite3")
    try:
        live = "SELECT count(*) FROM tasks WHERE status IN ('pending', 'processing')"
        return database.execute(live).fetchone()[0]
    finally:
        database.close()


def test_data_is_consistent_after_some_kills(tmp_path):
    kill_repeatedly(6, tmp_path, seed=2)  # kills each of the four at least once


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_data_is_consistent_after_many_kills(tmp_path, seed):
    kill_repeatedly(100, tmp_path, seed=seed)


def test_two_processes_that_are_killed_again_and_again_never_allow_more_uploads_than_the_limit(tmp_path):
    began = time.monotonic()
    roles = [["count", "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f"]] * 2
    processes = Processes(tmp_path, roles, rate_limits="contract")
    try:
        for number in range(6):
            processes.kill_one(number % 2)
            processes.start(number % 2)
    finally:
        processes.kill_all()
    windows = 1 + int((time.monotonic() - began) // 60)
    allowed, refused = len(processes.reports("allowed")), len(processes.reports("refused"))
    assert refused > 0
    # a process that is killed between counting and reporting has allowed nothing
    assert RATE_LIMITS[Tier.FREE][Action.UPLOAD] - len(roles) - 6 <= allowed
    assert allowed <= RATE_LIMITS[Tier.FREE][Action.UPLOAD] * windows

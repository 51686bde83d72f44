"""Real processes on one disk: killed at every stage, drained, started again. Nothing is lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from s3seg.app import Parts
from s3seg.app.settings import Settings
from s3seg.tasks.model import TaskRequest, TaskStatus
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import NewImage
from tests.helpers.inference_system import STREET, USER

KEY = "a key for these tests"
ROOT = Path(__file__).parents[2]
SERVE = "import sys; from s3seg.cli import main; sys.argv.insert(1, 'serve'); main()"
QUICK = "from tests.helpers.quick_worker import main; main()"  # the same pipeline around a network without PyTorch
WORK = "import sys; from s3seg.cli import main; sys.argv.insert(1, 'worker'); main()"


@pytest.fixture
def environment(tmp_path):
    chosen = {
        "S3SEG_DATA_DIR": str(tmp_path / "data"),
        "S3SEG_RATE_LIMITS": "off",
        "S3SEG_MAX_ATTEMPTS": "50",
        "S3SEG_LEASE_S": "1",
        "S3SEG_POLL_S": "0.05",
        "S3SEG_CHECKPOINT": "embedded",
        "S3SEG_DEVICE": "cpu",
        "S3SEG_DTYPE": "float32",
        "S3SEG_DECODE_PROCESSES": "0",  # without it each process starts another that imports PyTorch too
        "API_SECRET_KEY": KEY,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("S3SEG_")} | chosen


@pytest.fixture
def settings(tmp_path):
    return Settings(_env_file=None, data_dir=tmp_path / "data", rate_limits="off", max_attempts=50, welcome_credits=100)


class Process:
    """A process of ours, and the lines that it logs."""

    def __init__(self, code, *arguments, environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(line))

    def logged(self, message):
        """The first line with this message, waited for."""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            for line in list(self.lines):
                if line["message"] == message:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{message!r} was not logged: {self.lines}")

    def end(self, timeout=60):
        code = self.process.wait(timeout)
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


@contextlib.contextmanager
def started(code, *arguments, environment):
    running = Process(code, *arguments, environment=environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.end()


async def submit(parts, count):
    key = new_image_key(USER.user_id, "image/png")
    await parts.objects.put(key, STREET)
    image = NewImage(object_key=key, content_type="image/png", size_bytes=len(STREET), width=800, height=640)
    url = (await parts.task_store.register_image(USER, image)).image_url
    prompts = ("car", "tree")
    return [
        (await parts.task_store.submit(USER, TaskRequest(image_url=url, prompts=prompts))).task for _ in range(count)
    ]


async def all_ended(parts, tasks):
    async with asyncio.timeout(60):
        while True:
            rows = [await parts.task_queue.get_task(task.task_id) for task in tasks]
            if all(row.ended for row in rows):
                return rows
            await asyncio.sleep(0.05)


MOMENTS = ("claim_batch!", "get", "put", "put!", "finish", "finish!")


@pytest.mark.parametrize("code", [QUICK, pytest.param(WORK, marks=pytest.mark.slow)], ids=["quick", "network"])
def test_workers_that_are_killed_at_every_stage_lose_nothing_and_nothing_is_paid_twice(environment, settings, code):
    async def before():
        parts = Parts(settings)
        tasks = await submit(parts, 4)
        credits = (await parts.accounts.ensure(USER.user_id)).credits
        await parts.aclose()
        return tasks, credits

    tasks, credits = asyncio.run(before())
    deadly = {
        "S3SEG_OBJECT_STORE": "tests.helpers.killing_adapters:objects",
        "S3SEG_TASK_QUEUE": "tests.helpers.killing_adapters:queue",
    }
    with contextlib.ExitStack() as stack:
        victims = {
            moment: stack.enter_context(started(code, environment=environment | deadly | {"S3SEG_TEST_DIE": moment}))
            for moment in MOMENTS
        }
        for moment, victim in victims.items():
            assert victim.end() == -signal.SIGKILL, (moment, victim.lines)

    async def after():
        parts = Parts(settings)
        rows = await all_ended(parts, tasks)
        assert {row.status for row in rows} == {TaskStatus.DONE}
        assert max(len(row.labels) for row in rows) == 2
        for row in rows:
            for key in row.object_keys:
                assert len(await parts.objects.get(key)) > 0
        ledger = await parts.accounts.ledger(USER.user_id)
        assert (await parts.accounts.ensure(USER.user_id)).credits == credits == sum(entry.delta for entry in ledger)
        assert "refund" not in {entry.reason for entry in ledger}
        await parts.aclose()

    with started(code, environment=environment) as rescuer:
        asyncio.run(after())
        rescuer.process.send_signal(signal.SIGTERM)
        assert rescuer.end() == (0 if code == WORK else -signal.SIGTERM)  # the quick one does not drain


def test_the_service_answers_drains_on_sigterm_and_gives_leases_back(environment, settings):
    parts = Parts(settings)
    tasks = asyncio.run(submit(parts, 3))
    chosen = environment | {"S3SEG_CLAIMED_AT_ONCE": "1", "S3SEG_DECODE_PROCESSES": "1"}
    with started(SERVE, "gpu", "--port", "0", environment=chosen) as service:
        port = service.logged("listening")["port"]
        service.logged("the model is ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=60) as client:
            assert client.get("/ready").json()["ready"] is True
            task = tasks[-1]
            body = {"image_url": task.source_image_url, "user_id": task.user_id, "task_id": task.task_id}
            answer = client.post("/api/v1/predict/batch", json=body | {"prompts": ["car", "tree"]})
            assert answer.status_code == 200, answer.text
            assert [one["labels"] for one in answer.json()["results"]] == [["car"], ["tree"]]
        request_id = answer.headers["X-Request-Id"]
        while not any(line.get("request_id") == request_id for line in service.lines):
            time.sleep(0.01)  # lines are written a moment later
        about_task = [line for line in service.lines if line.get("task_id") == task.task_id]
        # the claim loop may have finished the task before the request came; only then is there a line without its id
        assert {line.get("request_id") for line in about_task} <= {request_id, None}
        assert request_id in {line.get("request_id") for line in about_task}
        assert any(line.get("stages_ms", {}).get("segment", 0) > 0 for line in about_task)
        asyncio.run(all_ended(parts, tasks))
        more = asyncio.run(submit(parts, 3))
        service.process.send_signal(signal.SIGTERM)
        service.end()
        assert "draining" in [line["message"] for line in service.lines]
        assert KEY not in json.dumps(service.lines)

    async def unharmed():
        for task in more:
            row = await parts.task_queue.get_task(task.task_id)
            assert row.status == TaskStatus.DONE or row.attempts.counted == 0
            assert row.attempts.worker is None
        await parts.aclose()

    asyncio.run(unharmed())


STUCK = """
import json, sys, time, typer
import s3seg.app.engine
from tests.helpers.inference_system import ScriptedNetwork
from s3seg.commands.serve import app
from s3seg.commands.worker import worker

def stick(message):
    print(json.dumps({"message": message}), file=sys.stderr, flush=True)
    time.sleep(600)

class Stuck(ScriptedNetwork):
    def encode(self, pictures):
        stick("stuck")

what = sys.argv.pop(1)
assert s3seg.app.engine._network_loader
s3seg.app.engine._network_loader = lambda settings: lambda: stick("loading") if what == "loading" else Stuck()
app() if len(sys.argv) > 1 else typer.run(worker)
"""


def signalled_twice(process, *, at):
    process.logged(at)
    process.process.send_signal(signal.SIGTERM)
    process.logged("draining")
    process.process.send_signal(signal.SIGTERM)
    return process.end()


def test_a_second_sigterm_stops_a_worker_whose_weights_still_load(environment):
    with started(STUCK, "loading", environment=environment) as process:
        assert signalled_twice(process, at="loading") == -signal.SIGTERM


@pytest.mark.parametrize("arguments", [(), ("gpu", "--port", "0")], ids=["worker", "service"])
def test_a_second_sigterm_gives_leases_back_at_once(environment, settings, arguments):
    parts = Parts(settings)
    tasks = asyncio.run(submit(parts, 2))
    with started(STUCK, "working", *arguments, environment=environment | {"S3SEG_LEASE_S": "600"}) as process:
        assert signalled_twice(process, at="stuck") == -signal.SIGTERM

    async def rows():
        found = [await parts.task_queue.get_task(task.task_id) for task in tasks]
        await parts.aclose()
        return found

    for row in asyncio.run(rows()):
        assert (row.attempts.worker, row.attempts.counted) == (None, 0)


def test_it_does_not_start_without_a_key_or_weights_and_says_so(environment):
    def said(*arguments, code=1, **changed):
        process = subprocess.run(
            [sys.executable, "-c", SERVE, "gpu", *arguments], env=environment | changed, capture_output=True, text=True
        )
        assert process.returncode == code
        return process.stderr

    assert "API_SECRET_KEY" in said(API_SECRET_KEY="")
    assert "loopback only" in said("--insecure-no-key", "--host", "0.0.0.0", code=2, API_SECRET_KEY="")
    assert "nowhere.safetensors" in said("--checkpoint", "/nowhere.safetensors")

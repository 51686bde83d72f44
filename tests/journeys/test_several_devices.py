"""`s3seg serve gpu --device cpu,cpu`: a process for each device, behind one port."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from s3seg.app import Parts
from tests.helpers.inference_system import USER
from tests.journeys.test_gpu_processes import (
    KEY,
    SERVE,
    environment,  # noqa: F401 (a fixture)
    settings,  # noqa: F401 (a fixture)
    started,
    submit,
)

pytestmark = pytest.mark.slow  # three processes import PyTorch


def children(pid: int) -> set[int]:
    """The network processes that a process has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and b"s3seg.inference.accelerator.child" in command:
            found.add(int(stat.parent.name))
    return found


def until(condition, seconds=60):
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.05)
    return value


def test_two_devices_behind_one_port(environment, settings):  # noqa: F811
    with started(SERVE, "gpu", "--port", "0", "--device", "cpu,cpu", environment=environment) as service:
        port = service.logged("listening")["port"]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=60) as client:
            service.logged("the model is ready")
            assert client.get("/ready").status_code == 200
            first = children(service.process.pid)
            assert len(first) == 2
            assert client.get("/api/v1/model/info").json()["device"] == "cpu, cpu"
            predict(client, settings)
            metrics = client.get("/metrics").text
            for number in range(2):
                assert f's3seg_network_up{{device="cpu",network="{number}"}} 1.0' in metrics

            os.kill(min(first), signal.SIGKILL)
            until(lambda: client.get("/ready").status_code == 503)
            predict(client, settings)  # by the other
            service.logged("the network's process has been restarted")
            until(lambda: client.get("/ready").status_code == 200)
            second = children(service.process.pid)
            assert len(second) == 2
            assert second != first
            predict(client, settings)

        service.process.send_signal(signal.SIGINT)
        assert service.end() in (0, -signal.SIGINT, 130)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in second))


def test_the_network_processes_end_with_a_service_that_is_killed(environment):  # noqa: F811
    with started(SERVE, "gpu", "--port", "0", "--device", "cpu,cpu", environment=environment) as service:
        service.logged("the model is ready")
        pids = children(service.process.pid)
        assert len(pids) == 2
        service.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def predict(client: httpx.Client, settings) -> None:  # noqa: F811
    async def make():
        parts = Parts(settings)
        await parts.accounts.ensure(USER.user_id)
        (task,) = await submit(parts, 1)
        await parts.aclose()
        return task

    task = asyncio.run(make())
    answer = client.post(
        "/api/v1/predict",
        json={
            "image_url": task.source_image_url,
            "text_prompt": task.text_prompt,
            "user_id": USER.user_id,
            "task_id": task.task_id,
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["labels"]

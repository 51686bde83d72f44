"""The edge notifies the GPU service of tasks over HTTP."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from s3seg.adapters.http_notifier import HttpNotifier
from s3seg.api.gpu import BatchPredictRequest, PredictRequest
from s3seg.client import Client
from s3seg.errors import UnavailableError
from s3seg.tasks.model import Task, TaskStatus
from s3seg.testing import WorkerNotifierSuite
from tests.helpers.processes import EDGE, Process, edge_process, free_port, wait_for
from tests.journeys.test_edge_processes import token_for

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = Task(
    task_id="5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11",
    user_id="0b0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11",
    project_id=None,
    image_id=None,
    source_image_url="https://objects.example/users/u/images/i.png",
    prompts=("cat",),
    status=TaskStatus.PENDING,
    created_at=NOW,
    updated_at=NOW,
    deadline=NOW + timedelta(minutes=5),
)


class TestHttpNotifier(WorkerNotifierSuite):
    @pytest.fixture
    def notifier(self):
        return HttpNotifier("http://127.0.0.1:1", api_key="key")


def answering(answer, **options):
    requests = []

    def handle(request):
        requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return HttpNotifier("http://gpu.example/", api_key="k3y", transport=transport, **options), requests


@pytest.mark.parametrize(
    ("prompts", "path", "model"),
    [
        (("cat",), "/api/v1/predict", PredictRequest),
        (("cat", "dog"), "/api/v1/predict/batch", BatchPredictRequest),
    ],
)
async def test_the_request_is_that_of_the_gpu_api(prompts, path, model):
    notifier, requests = answering(httpx.Response(200), request_id=lambda: "the-request")
    await notifier.wake(replace(TASK, prompts=prompts))
    (request,) = requests
    assert str(request.url) == f"http://gpu.example{path}"
    assert request.headers["x-api-key"] == "k3y"
    assert request.headers["x-request-id"] == "the-request"
    body = model.model_validate(json.loads(request.content))
    assert (body.task_id, body.user_id, body.image_url) == (TASK.task_id, TASK.user_id, TASK.source_image_url)
    assert body == (
        model(image_url=body.image_url, text_prompt="cat", user_id=body.user_id, task_id=body.task_id)
        if model is PredictRequest
        else model(image_url=body.image_url, prompts=list(prompts), user_id=body.user_id, task_id=body.task_id)
    )


@pytest.mark.parametrize("answer", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.Response(503)])
async def test_a_failed_call_is_logged_without_the_key_and_not_raised(answer, caplog):
    caplog.set_level(logging.INFO)
    notifier, _ = answering(answer)
    await notifier.wake(TASK)
    assert caplog.records
    assert "k3y" not in caplog.text + repr(vars(caplog.records[0]))


async def test_a_wrong_key_is_logged_as_an_error(caplog):
    notifier, _ = answering(httpx.Response(401))
    await notifier.wake(TASK)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_service_that_does_not_respond_is_unavailable():
    notifier, _ = answering(httpx.ConnectError("x"))
    with pytest.raises(UnavailableError, match="gpu service"):
        await notifier.check()


def _calls(log: str) -> list[dict]:
    return [json.loads(line) for line in log.splitlines() if '"/api/v1/predict' in line]


def _request_ids(log: str) -> set[str | None]:
    return {json.loads(line).get("request_id") for line in log.splitlines() if line.startswith("{")}


def _wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up, "the condition did not become true within 20 s"
        time.sleep(0.05)


def test_separate_edge_and_gpu_processes_share_only_the_data_directory(tmp_path):
    port = free_port()
    gpu_url = f"http://127.0.0.1:{port}"
    data = tmp_path / "data"
    key = {"API_SECRET_KEY": "a long random value", "S3SEG_GPU_URL": gpu_url}
    with edge_process(data, **key) as (edge, url), Client(url, token_for(data)) as client:
        settings = {"S3SEG_DATA_DIR": str(data), "S3SEG_PUBLIC_BASE_URL": f"{url}/files", "S3SEG_DEVICE": "cpu"}
        # the worker polls only once an hour, so a result that comes in time is due to the call of the edge
        settings |= {"S3SEG_POLL_S": "3600", "S3SEG_CHECKPOINT": "embedded", "S3SEG_DECODE_PROCESSES": "0"}
        gpu = Process(EDGE, "gpu", "--port", str(port), log=data / "gpu.log", **key, **settings)
        gpu.start()
        try:
            wait_for(gpu_url, "/ready")
            result = client.segment("examples/pictures/street.png", "car", timeout=30)
            assert len(result) > 0
            results = client.segment("examples/pictures/street.png", ["car", "tree"], timeout=30)
            assert [one.prompt for one in results] == ["car", "tree"]
            _wait_until(lambda: len(_calls(gpu.log)) == 2)  # log lines are written by another thread
            calls = _calls(gpu.log)
            assert [call["status"] for call in calls] == [200, 200]
            _wait_until(lambda: {call["request_id"] for call in calls} <= _request_ids(edge.log))
        finally:
            gpu.kill()

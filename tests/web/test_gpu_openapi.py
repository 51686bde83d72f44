"""Our own description, believed by a machine: schemathesis calls a running service with what it may not expect."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings

from s3seg.adapters.sqlite import Database, Policy, SqliteTaskQueue
from s3seg.web.gpu_app import build_gpu_app
from s3seg.web.metrics import HttpMetrics
from tests.helpers.inference_system import InferenceSystem
from tests.web.contract_bodies import require_valid_openapi

KEY = "correct horse"


@contextlib.contextmanager
def running(make_app):
    """Serve an application on a thread; gives its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(), log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    database = Database(tmp_path_factory.mktemp("gpu") / "tasks.sqlite3")  # where odd task ids are hardest

    def make_app():
        system = InferenceSystem()
        system.queue = SqliteTaskQueue(database, policy=Policy())
        engine = system.engine()

        @contextlib.asynccontextmanager
        async def lifespan(app):
            engine.start()
            await engine.loaded()
            yield
            await engine.aclose()
            await database.aclose()

        return build_gpu_app(engine, keys=[KEY], metrics=HttpMetrics(), lifespan=lifespan)

    with running(make_app) as url:
        yield url


def test_every_answer_is_one_that_is_described(service):
    # by hand: schemathesis 4.32's own parametrize does not work with pytest 9
    schema = schemathesis.openapi.from_url(f"{service}/openapi.json")
    checked = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.as_strategy())
        def call(case):
            case.call_and_validate(headers={"X-API-Key": KEY})
            checked.add(case.operation.label)

        call()
    assert len(checked) == 6  # all but the document itself


def test_the_description_is_valid_openapi(service):
    require_valid_openapi(httpx.get(f"{service}/openapi.json").json())


@pytest.mark.parametrize("odd", ["\\ud800", "\\u0000", "\\u202e", "x" * 60_000])
def test_odd_text_in_any_field_is_refused_not_crashed_on(service, odd):
    for field in ("image_url", "text_prompt", "user_id", "task_id"):
        fields = {"image_url": "http://a", "text_prompt": "a", "user_id": "u", "task_id": "t"} | {field: odd}
        body = "{" + ", ".join(f'"{name}": "{value}"' for name, value in fields.items()) + "}"
        answer = httpx.post(f"{service}/api/v1/predict", content=body, headers={"X-API-Key": KEY})
        assert answer.status_code in (400, 404), (field, answer.text)


def test_health_answers_while_many_ask(service):
    async def ask():
        async with httpx.AsyncClient(base_url=service, headers={"X-API-Key": KEY}) as client:
            return await asyncio.gather(*(client.get("/health") for _ in range(50)))

    assert {answer.status_code for answer in asyncio.run(ask())} == {200}

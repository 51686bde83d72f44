"""What every service gets from the frame: ids, errors in its own body, logs that cannot be forged, OpenAPI."""

from __future__ import annotations

import io
import json
import logging
import uuid

import httpx
import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse

from s3seg.api.envelope import GpuErrorResponse
from s3seg.errors import ConfigurationError, InvalidRequestError, RateLimitedError, UnavailableError
from s3seg.web.app import build_app
from s3seg.web.errors import ErrorResponse
from s3seg.web.logs import JsonFormatter, bound, remember_task
from s3seg.web.metrics import HttpMetrics
from s3seg.web.middleware import request_id_of
from s3seg.web.openapi import openapi_document
from s3seg.web.operations import Operation, ResponseSpec
from s3seg.web.validation import read_json, read_query
from tests.web.contract_bodies import require_valid_openapi

pytestmark = pytest.mark.anyio


class Wish(BaseModel):
    word: str


class Echo(BaseModel):
    word: str
    request_id: str


async def echo(request: Request) -> JSONResponse:
    wish = await read_json(request, Wish)
    return JSONResponse({"word": wish.word, "request_id": request_id_of(request)})


async def peek(request: Request) -> JSONResponse:
    return JSONResponse({"word": read_query(request, Wish).word, "request_id": request_id_of(request)})


ERRORS = {
    "refused": InvalidRequestError("word: too odd"),
    "limited": RateLimitedError("slow down", limit=5, retry_after=2.1),
    "down": UnavailableError("the disk is full", retry_after=0.2),
    "secret": ConfigurationError("S3SEG_KEY=hunter2 cannot work"),
    "bug": ZeroDivisionError("hunter2"),
}


async def fail(request: Request) -> JSONResponse:
    raise ERRORS[request.path_params["kind"]]


OPERATIONS = (
    Operation(
        method="POST",
        path="/echo",
        handler=echo,
        summary="Echo",
        body=Wish,
        responses={200: ResponseSpec(description="It", model=Echo)},
    ),
    Operation(
        method="GET",
        path="/echo",
        handler=peek,
        summary="Echo",
        query=Wish,
        responses={200: ResponseSpec(description="It", model=Echo)},
    ),
    Operation(
        method="GET",
        path="/fail/{kind}",
        handler=fail,
        summary="Fail",
        responses={},
        errors=("INVALID_REQUEST", "UNAVAILABLE"),
        path_formats={"kind": "word"},
        secured=False,
    ),
)


def render(answer: ErrorResponse, request_id: str) -> JSONResponse:
    return JSONResponse({"error": {"code": answer.code, "message": answer.message}}, answer.status)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def connect(**options) -> httpx.AsyncClient:
    app = build_app(OPERATIONS, render_error=render, metrics=options.pop("metrics", HttpMetrics()), **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


@pytest.mark.parametrize(
    ("kind", "status", "code", "message"),
    [
        ("refused", 400, "INVALID_REQUEST", "word: too odd"),
        ("limited", 429, "RATE_LIMITED", "slow down"),
        ("down", 503, "UNAVAILABLE", "the disk is full"),
        ("secret", 500, "INTERNAL_ERROR", None),
        ("bug", 500, "INTERNAL_ERROR", None),
    ],
)
async def test_errors_become_their_status_and_keep_secrets(kind, status, code, message):
    async with connect() as client:
        answer = await client.get(f"/fail/{kind}")
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    if message is None:
        assert "hunter2" not in answer.text
    else:
        assert answer.json()["error"]["message"] == message
    assert uuid.UUID(answer.headers["x-request-id"]).version == 4
    assert answer.headers.get("retry-after") == {"limited": "3", "down": "1"}.get(kind)


async def test_unknown_paths_and_methods_have_the_services_error_body():
    async with connect() as client:
        missing, wrong = await client.get("/nowhere"), await client.delete("/echo")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "word: "),
        (b'{"word": 3}', "word: "),
        (b" " * 70_000, "longer than 65536 bytes"),
    ],
)
async def test_a_body_that_cannot_be_used_is_400_and_says_why(body, said):
    async with connect() as client:
        answer = await client.post("/echo", content=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


async def test_a_query_parameter_is_given_once():
    async with connect() as client:
        assert (await client.get("/echo?word=a")).json()["word"] == "a"
        twice = await client.get("/echo?word=a&word=b")
    assert twice.status_code == 400
    assert "more than once" in twice.json()["error"]["message"]


async def test_a_request_id_is_accepted_only_from_our_own_services():
    sent = str(uuid.uuid4())
    async with connect(accept_request_id=True) as inner, connect() as outer:
        kept = await inner.post("/echo", json={"word": "a"}, headers={"X-Request-Id": sent})
        odd = await inner.post("/echo", json={"word": "a"}, headers={"X-Request-Id": "a b"})
        new = await outer.post("/echo", json={"word": "a"}, headers={"X-Request-Id": sent})
    assert kept.json()["request_id"] == kept.headers["x-request-id"] == sent
    assert uuid.UUID(odd.headers["x-request-id"]).version == 4
    assert new.headers["x-request-id"] != sent


def test_a_log_entry_is_one_line_of_json_whatever_it_contains():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("test")
    log.addHandler(handler)
    with bound(request_id="r-1"):
        log.info("stored %s", 'a\n{"level": "forged"}', extra={"task_id": "t-1"})
        log.error("failed", exc_info=ValueError("two\nlines"))
    log.info("after")
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == 'stored a\n{"level": "forged"}'
    assert (first["request_id"], first["task_id"], first["level"]) == ("r-1", "t-1", "info")
    assert second["error"] == "ValueError"
    assert "two\nlines" in second["trace"]
    assert "request_id" not in third


def lines_of(*records: tuple[str, dict]) -> list[dict]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("test")
    log.addHandler(handler)
    for message, extra in records:
        log.info(message, extra=extra)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_about_a_task_have_the_id_of_the_request_that_brought_it():
    with bound(request_id="r-1"):
        remember_task("t-1")
    with bound(request_id="r-2"):
        remember_task("t-1")
    lines = lines_of(
        ("unknown", {"task_id": "t-0"}),
        ("prediction", {"task_id": "t-1"}),
        ("asked for again", {"task_id": "t-1", "request_id": "r-2"}),
        ("other", {}),
    )
    assert [line.get("request_id") for line in lines] == [None, "r-1", "r-2", None]


@pytest.mark.parametrize("value", ["a" * 10**6, ["a" * 10**6], {"a": ["b" * 10**6]}, 10**4000, b"a" * 10**6])
def test_no_value_makes_a_line_long(value):
    (line,) = lines_of(("about %s" % ("a" * 10**6), {"value": value}))
    assert line["message"].startswith("about aaa")
    assert "characters left out" in line["message"]
    assert len(json.dumps(line)) < 10_000


async def test_requests_are_counted_by_route_and_errors_by_code():
    metrics = HttpMetrics()
    async with connect(metrics=metrics) as client:
        await client.post("/echo", json={"word": "a"})
        await client.get("/fail/down")
        await client.get("/secret-" + "x" * 50)
    value = metrics.registry.get_sample_value
    labels = {"method": "POST", "route": "/echo", "status": "200"}
    assert value("s3seg_http_request_seconds_count", labels) == 1
    assert value("s3seg_http_errors_total", {"route": "/fail/{kind}", "code": "UNAVAILABLE"}) == 1
    assert value("s3seg_http_errors_total", {"route": "unknown", "code": "NOT_FOUND"}) == 1


def test_the_openapi_document_is_valid_and_tells_every_operation():
    document = openapi_document(
        OPERATIONS,
        title="Test",
        version="1",
        security_scheme={"type": "http", "scheme": "bearer"},
        error_model=GpuErrorResponse,
    )
    require_valid_openapi(document)
    assert set(document["paths"]["/echo"]) == {"get", "post"}
    failing = document["paths"]["/fail/{kind}"]["get"]
    assert set(failing["responses"]) == {"400", "500", "503"}
    assert failing["security"] == []
    assert failing["parameters"][0]["name"] == "kind"

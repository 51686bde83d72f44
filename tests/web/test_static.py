"""What is the same for everybody is made once, and its bytes are kept."""

from __future__ import annotations

import hashlib
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from s3seg.web.metrics import HttpMetrics
from s3seg.web.openapi import openapi_handler
from s3seg.web.static import StaticContent

pytestmark = pytest.mark.anyio


def client_of(*routes, base="http://x"):
    return httpx.AsyncClient(transport=httpx.ASGITransport(Starlette(routes=list(routes))), base_url=base)


async def test_who_has_the_content_already_is_told_so():
    content = StaticContent(b"hello", "text/plain", {"X-Kept": "yes"})

    async def serve(request):
        return content.answer(request)

    async with client_of(Route("/a", serve)) as http:
        first = await http.get("/a")
        again = await http.get("/a", headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
        head = await http.head("/a")
        stale = await http.get("/a", headers={"If-None-Match": '"other"'})
    assert (first.status_code, first.content, first.headers["content-type"]) == (200, b"hello", "text/plain")
    assert first.headers["etag"] == f'"{hashlib.sha256(b"hello").hexdigest()[:32]}"'
    assert (again.status_code, again.content) == (304, b"")
    assert (head.content, head.headers["content-length"]) == (b"", "5")
    assert (stale.status_code, stale.content) == (200, b"hello")
    for answer in (first, again, head):
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-kept"] == "yes"


async def test_the_openapi_document_is_made_once_for_all_paths():
    made = []

    def make():
        made.append(1)
        return {"openapi": "3.1.0", "title": "Bäume"}

    route = Route("/openapi.json", openapi_handler(make))
    async with client_of(route, Mount("/seg", routes=[route])) as http:
        answers = [await http.get(path) for path in ("/openapi.json", "/openapi.json", "/seg/openapi.json")]
    plain, same, mounted = answers
    assert plain.json() == {"openapi": "3.1.0", "title": "Bäume"}
    assert plain.content == same.content
    assert mounted.json() == {**plain.json(), "servers": [{"url": "/seg"}]}
    assert plain.headers["etag"] == same.headers["etag"] != mounted.headers["etag"]
    assert made == [1]


async def test_metrics_are_written_at_most_once_a_second(monkeypatch):
    now = 100.0
    monkeypatch.setattr("s3seg.web.metrics.time.monotonic", lambda: now)
    metrics = HttpMetrics()
    async with client_of(Route("/metrics", metrics.endpoint)) as http:
        metrics.failed(route="/r", code="C")
        first = (await http.get("/metrics")).text
        metrics.failed(route="/r", code="C")
        now += 0.9
        assert (await http.get("/metrics")).text == first
        now += 0.2
        later = (await http.get("/metrics")).text
    assert 's3seg_http_errors_total{code="C",route="/r"} 1.0' in first
    assert 's3seg_http_errors_total{code="C",route="/r"} 2.0' in later


async def test_the_bytes_are_the_document(tmp_path):
    document = {"a": [1, 2], "b": "ü"}
    async with client_of(Route("/openapi.json", openapi_handler(lambda: document))) as http:
        answer = await http.get("/openapi.json")
    assert answer.content == json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    assert answer.headers["content-type"] == "application/json"

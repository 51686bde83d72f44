"""Server-sent events."""

import asyncio

import pytest

from s3seg.api.envelope import ErrorBody
from s3seg.errors import NotFoundError
from s3seg.web.events import event_stream

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_an_idle_stream_sends_keep_alives_until_the_next_event(monkeypatch):
    monkeypatch.setattr("s3seg.web.events._KEEP_ALIVE_S", 0.001)
    go_on = asyncio.Event()

    async def events():
        await go_on.wait()
        yield "task", ErrorBody(code="X", message="x")

    chunks = []
    async for chunk in event_stream(events()):
        chunks.append(chunk)
        if chunks.count(b": keep-alive\n\n") == 2:
            go_on.set()
    assert chunks[:2] == [b": keep-alive\n\n"] * 2
    assert chunks[-1] == b'event: task\ndata: {"code":"X","message":"x"}\n\n'


async def test_an_error_is_the_last_event():
    async def events():
        yield "task", ErrorBody(code="X", message="x")
        raise NotFoundError("no such task")

    chunks = [chunk async for chunk in event_stream(events())]
    assert chunks[-1] == b'event: error\ndata: {"code":"NOT_FOUND","message":"no such task"}\n\n'
    assert len(chunks) == 2

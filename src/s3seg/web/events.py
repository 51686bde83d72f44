"""Server-sent events: a stream of named models, with keep-alive comments while nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from pydantic import BaseModel

from s3seg.api.envelope import ErrorBody
from s3seg.errors import S3segError
from s3seg.web.errors import error_response

Event = tuple[str, BaseModel]
"""An event's name and its data."""

_KEEP_ALIVE_S = 15.0


async def event_stream(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Write events as ``text/event-stream``; an `S3segError` becomes the last one, named ``error``.

    Comments in between keep proxies from closing an idle stream.
    """
    async with contextlib.aclosing(events), contextlib.aclosing(_with_keep_alives(events)) as stream:
        try:
            async for event in stream:
                yield b": keep-alive\n\n" if event is None else _encoded(event)
        except S3segError as err:
            response = error_response(err)
            yield _encoded(("error", ErrorBody(code=response.code, message=response.message)))


def _encoded(event: Event) -> bytes:
    name, data = event
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()


async def _with_keep_alives(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event | None, None]:
    """Yield the events, and None whenever there was none for a while."""
    pending: asyncio.Future[Event] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait([pending], timeout=_KEEP_ALIVE_S)
            if not done:
                yield None
                continue
            arrived, pending = pending, None
            try:
                yield arrived.result()
            except StopAsyncIteration:
                return
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait([pending])

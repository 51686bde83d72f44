"""Server-sent events: a stream of named models, with a sign of life while nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from pydantic import BaseModel

from s3seg.api.envelope import ErrorBody
from s3seg.errors import S3segError
from s3seg.web.errors import error_answer

Event = tuple[str, BaseModel]
"""An event's name and its data."""

_SIGN_OF_LIFE_S = 15.0


async def event_stream(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Write events as ``text/event-stream``; an error of ours becomes the last one, named ``error``.

    Comments in between keep proxies from closing a stream that is merely quiet.
    """
    async with contextlib.aclosing(events), contextlib.aclosing(_with_pauses(events)) as stream:
        try:
            async for event in stream:
                yield b": still here\n\n" if event is None else _written(event)
        except S3segError as err:
            told = error_answer(err)
            yield _written(("error", ErrorBody(code=told.code, message=told.message)))


def _written(event: Event) -> bytes:
    name, data = event
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()


async def _with_pauses(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event | None, None]:
    """The events, and None whenever there was none for a while."""
    coming: asyncio.Future[Event] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait([coming], timeout=_SIGN_OF_LIFE_S)
            if not done:
                yield None
                continue
            arrived, coming = coming, None
            try:
                yield arrived.result()
            except StopAsyncIteration:
                return
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait([coming])

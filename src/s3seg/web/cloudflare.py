"""Requests of a Cloudflare Worker through an ASGI application, with both bodies streamed, and logs to its console."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from js import (  # pyright: ignore[reportMissingImports]
    URL,
    AbortSignal,
    Object,
    Response,
    TransformStream,
    WritableStream,
    console,
)
from pyodide.ffi import (  # pyright: ignore[reportMissingImports]
    JsException,
    create_proxy,
    jsnull,
    to_js,
)
from starlette.types import ASGIApp, Message, Scope

from s3seg.web.multipart import MAY_LEAVE_BODIES

_log = logging.getLogger("s3seg.server")
_DISCARD_MS = 10_000
_NOTHING = (None, jsnull)  # undefined and null
_WITHOUT_BODY = frozenset({101, 204, 205, 304})


async def respond(
    app: ASGIApp,
    request: Any,
    *,
    keep_alive: Callable[[Any], object],
    finish: Callable[[], Awaitable[None]],
) -> Any:
    """Run a request through an application, and return its response as soon as that begins.

    Args:
        app: An ASGI application; its lifespan does not run.
        request: A ``Request`` of JavaScript.
        keep_alive: The Worker's ``waitUntil``: the rest of the response is made after this returns.
        finish: Called after the response.

    Returns:
        A ``Response`` of JavaScript.
    """
    exchange = _Exchange(request)

    async def run() -> None:
        try:
            await app(exchange.scope, exchange.receive, exchange.send)
        except Exception:
            _log.exception("a request failed outside the application's own error handling")
        finally:
            await exchange.end()
            await finish()

    running = asyncio.ensure_future(run())
    response = await exchange.answered
    if not running.done():
        proxy = create_proxy(running)
        running.add_done_callback(lambda _: proxy.destroy())
        keep_alive(proxy)
    return response


class ConsoleHandler(logging.Handler):
    """Writes log lines to the console of JavaScript, each with the method of its level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        write = console.error if record.levelno >= logging.ERROR else console.log
        if record.levelno == logging.WARNING:
            write = console.warn
        write(self.format(record))


class _Exchange:
    """One request and its response: ``scope``, ``receive`` and ``send`` of ASGI."""

    def __init__(self, request: Any) -> None:
        self.scope = _scope(request)
        self.answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._request = request
        self._body: Any = None if request.body in _NOTHING else request.body.getReader()
        self._read_whole = self._body is None
        self._over = asyncio.Event()
        self._start: Message | None = None
        self._writer: Any = None
        self._on_abort: Any = None
        if request.signal not in _NOTHING:
            self._on_abort = create_proxy(lambda _: self._over.set())
            request.signal.addEventListener("abort", self._on_abort)

    async def receive(self) -> Message:
        """Return the next piece of the body; after the last one, wait until the exchange is over."""
        if self._body is not None:
            try:
                read = await self._body.read()
            except JsException:
                self._body = None
                return {"type": "http.disconnect"}
            if not read.done:
                return {"type": "http.request", "body": read.value.to_bytes(), "more_body": True}
            self._body = None
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._read_whole:
            self._read_whole = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send the next piece of the response; the first one answers the request."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body" or self._start is None or self._over.is_set():
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if not self.answered.done():
            if self._body is not None:
                await self._discard_body()
            if not more:
                self._answer(self._start, to_js(body) if body else None)
                self._over.set()
                return
            stream = TransformStream.new()
            self._writer = stream.writable.getWriter()
            self._writer.closed.catch(lambda _: self._over.set())  # the client has left
            self._answer(self._start, stream.readable)
        try:
            if body:
                await self._writer.write(to_js(body))
            if not more:
                self._close()
        except JsException:  # the client is gone
            self._over.set()

    async def end(self) -> None:
        """Close what an application that failed has left open."""
        if not self.answered.done():
            self._answer({"status": 500, "headers": []}, None)
        elif self._writer is not None:
            self._close()
        self._over.set()
        if self._body is not None:
            await self._discard_body()
        if self._on_abort is not None:
            self._request.signal.removeEventListener("abort", self._on_abort)
            self._on_abort.destroy()

    def _close(self) -> None:
        """End the stream of the response, without waiting: nobody may read it any more, and it may be closed."""
        self._over.set()
        self._writer.close().catch(lambda _: None)

    async def _discard_body(self) -> None:
        """Read what the client still sends, for some seconds: many clients read a response only after sending all.

        Its bytes do not come into the interpreter's memory.
        """
        self._body.releaseLock()
        self._body = None
        limit = _object({"signal": AbortSignal.timeout(_DISCARD_MS)})
        with contextlib.suppress(JsException):
            await self._request.body.pipeTo(WritableStream.new(), limit)

    def _answer(self, start: Message, body: Any) -> None:
        status = start["status"]
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in start["headers"]]
        init = _object({"status": status, "headers": headers})
        self.answered.set_result(Response.new(None if status in _WITHOUT_BODY else body, init))


def _scope(request: Any) -> Scope:
    url = URL.new(request.url)
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in request.headers]
    client = request.headers.get("cf-connecting-ip")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.protocol.removesuffix(":"),
        "path": unquote(url.pathname),
        "raw_path": url.pathname.encode("ascii"),
        "query_string": url.search.removeprefix("?").encode("ascii"),
        "root_path": "",
        "headers": headers,
        "server": (url.hostname, int(url.port) if url.port else None),
        "client": (client, 0) if client else None,
        MAY_LEAVE_BODIES: True,
    }


def _object(fields: dict[str, Any]) -> Any:
    """Return a dictionary as a plain JavaScript object."""
    return to_js(fields, dict_converter=Object.fromEntries)

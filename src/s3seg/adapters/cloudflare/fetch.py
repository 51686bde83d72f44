"""HTTP over the Worker's ``fetch``, as a transport of httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
from js import AbortSignal, fetch  # pyright: ignore[reportMissingImports]
from pyodide.ffi import JsException  # pyright: ignore[reportMissingImports]

from s3seg.adapters.cloudflare.convert import is_nothing, js_bytes, js_object

_SET_BY_FETCH = frozenset({b"host", b"content-length", b"connection", b"accept-encoding", b"transfer-encoding"})
_UNPACKED_BY_FETCH = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class FetchTransport(httpx.AsyncBaseTransport):
    """Sends requests with ``fetch``, without following redirects. The read timeout of httpx limits a whole response."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of its response is read as it arrives."""
        headers = [[k.decode(), v.decode()] for k, v in request.headers.raw if k.lower() not in _SET_BY_FETCH]
        asked: dict[str, Any] = {"method": request.method, "headers": headers, "redirect": "manual"}
        if body := await request.aread():
            asked["body"] = js_bytes(body)
        if timeout_s := request.extensions.get("timeout", {}).get("read"):
            asked["signal"] = AbortSignal.timeout(int(timeout_s * 1000))
        try:
            answer = await fetch(str(request.url), js_object(asked))
        except JsException as err:
            raise _translated(err, request) from None
        kept = [(name, value) for name, value in answer.headers if name.lower() not in _UNPACKED_BY_FETCH]
        return httpx.Response(answer.status, headers=kept, stream=_Body(answer.body, request), request=request)


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any, request: httpx.Request) -> None:
        self._reader = None if is_nothing(stream) else stream.getReader()
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._reader is not None:
            try:
                read = await self._reader.read()
            except JsException as err:
                raise _translated(err, self._request) from None
            if read.done:
                self._reader = None
                return
            yield read.value.to_bytes()

    async def aclose(self) -> None:
        """Tell the server that no more is read."""
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                await reader.cancel()
            except JsException:  # the connection is gone
                return


def _translated(err: Any, request: httpx.Request) -> httpx.TransportError:
    if err.name in ("TimeoutError", "AbortError"):
        return httpx.ReadTimeout("the server did not answer in time", request=request)
    return httpx.ConnectError("fetch failed", request=request)

"""The frame around both services: request ids, one log line a request, metrics, and errors in the service's body."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from s3seg.errors import S3segError
from s3seg.web.errors import ErrorAnswer, error_answer
from s3seg.web.logs import bound
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Operation, route_label, routes_of

RenderError = Callable[[ErrorAnswer, str], Response]
"""Puts an error into a service's own body; is given the request's id too."""

_log = logging.getLogger("s3seg.web")
_CLIENT_GONE = 499  # what nginx logs; nobody receives it
_UNLOGGED = frozenset({"/health", "/ready", "/metrics"})  # asked every few seconds by machines


def build_service(
    operations: Sequence[Operation],
    *,
    render_error: RenderError,
    metrics: HttpMetrics,
    lifespan: Lifespan[Starlette] | None = None,
    more_routes: Sequence[BaseRoute] = (),
    accept_request_id: bool = False,
    outer_middleware: Sequence[Middleware] = (),
) -> Starlette:
    """Make the application of a service.

    Args:
        operations: Its routes; see `Operation`.
        render_error: How it shows errors: 404s of unknown paths, 405s and crashes included.
        metrics: Where its requests are counted.
        lifespan: What begins and ends with it.
        more_routes: Routes that are not part of the API, such as static files; asked last.
        accept_request_id: Take over a caller's ``X-Request-Id`` if it is a UUID: for services behind ours.
        outer_middleware: What sees requests first, and every answer, those to crashes too: CORS.
    """

    async def show_error(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=_CLIENT_GONE)
        return _error_response(request.scope, error, render_error, metrics)

    service = Starlette(
        routes=[*routes_of(operations), *more_routes],
        lifespan=lifespan,
        middleware=[
            *outer_middleware,
            Middleware(_Frame, render_error=render_error, metrics=metrics, accept_request_id=accept_request_id),
        ],
        exception_handlers={HTTPException: show_error, S3segError: show_error, ClientDisconnect: show_error},
    )
    service.router.redirect_slashes = False  # a path that is nearly right is 404 in the service's own body
    return service


def request_id_of(request: Request) -> str:
    """The id of a request: a UUID v4, also in the answer's ``X-Request-Id`` and in every log line."""
    return request.scope["s3seg.request_id"]


class _Frame:
    """Around every request. Pure ASGI, so that streams pass through untouched."""

    def __init__(
        self, app: ASGIApp, *, render_error: RenderError, metrics: HttpMetrics, accept_request_id: bool
    ) -> None:
        self._app = app
        self._render_error = render_error
        self._metrics = metrics
        self._accept_request_id = accept_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["s3seg.request_id"] = self._request_id(scope)
        start = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                message["headers"] = [*headers, (b"x-request-id", request_id.encode("ascii"))]
            await send(message)

        with bound(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as err:
                _log.exception("a request crashed", extra={"route": route_label(scope)})
                if status == 0:
                    response = _error_response(scope, err, self._render_error, self._metrics)
                    await response(scope, receive, send_with_id)
            finally:
                self._note(scope, status or _CLIENT_GONE, time.perf_counter() - start)

    def _request_id(self, scope: Scope) -> str:
        if self._accept_request_id:
            sent = Request(scope).headers.get("x-request-id", "")
            try:
                return str(uuid.UUID(sent))
            except ValueError:
                pass
        return str(uuid.uuid4())

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_label(scope)
        self._metrics.answered(method=_known_method(scope), route=route, status=status, seconds=seconds)
        if route not in _UNLOGGED or status >= 500:
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            _log.info("request", extra=fields)


def _error_response(scope: Scope, error: Exception, render_error: RenderError, metrics: HttpMetrics) -> Response:
    answer = error_answer(error)
    metrics.failed(route=route_label(scope), code=answer.code)
    response = render_error(answer, scope["s3seg.request_id"])
    for name, value in answer.headers.items():
        response.headers[name] = value
    return response


def _known_method(scope: Scope) -> str:
    method = scope["method"]
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"

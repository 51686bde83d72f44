"""What surrounds every request: its id, its log line, its metrics, the check of its head, and the answer to a crash."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s3seg.web.errors import REFUSAL, RefusedRequestError, error_response
from s3seg.web.logs import bound
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import RenderError, route_label

CLIENT_CLOSED_REQUEST = 499
"""Status that is logged when the client is gone, as in nginx; nobody receives it."""

_log = logging.getLogger("s3seg.web")
_UNLOGGED = frozenset({"/health", "/ready", "/metrics"})  # probed every few seconds
_GIVEN_ONCE = frozenset(
    {
        b"host",
        b"content-length",
        b"content-type",
        b"authorization",
        b"idempotency-key",
        b"x-api-key",
        b"x-request-id",
        b"range",
        b"if-range",
    }
)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")


def request_id_of(request: Request) -> str:
    """Return the id of a request: a UUID v4, also in ``X-Request-Id`` of its response and in every log line."""
    return request.scope["s3seg.request_id"]


class RequestMiddleware:
    """Gives each request an id, logs and counts it, and answers crashes. Plain ASGI, so that streams pass through.

    A request with two values of a field that has one is answered 400: a proxy before the service might have read the
    other.

    Args:
        app: The application inside.
        render_error: Writes errors as the service's own body.
        metrics: Where requests and errors are counted.
        accept_request_id: Whether to take over a caller's ``X-Request-Id``.
    """

    def __init__(
        self, app: ASGIApp, *, render_error: RenderError, metrics: HttpMetrics, accept_request_id: bool
    ) -> None:
        self._app = app
        self._render_error = render_error
        self._metrics = metrics
        self._accept_request_id = accept_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; only HTTP requests are touched."""
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
                if REFUSAL not in scope:
                    _check_head(scope)
                await self._app(scope, receive, send_with_id)
            except RefusedRequestError as err:
                response = respond_to_error(scope, err, self._render_error, self._metrics)
                await response(scope, receive, send_with_id)
            except Exception as err:
                _log.exception("unhandled error in a request", extra={"route": route_label(scope)})
                if status == 0:
                    response = respond_to_error(scope, err, self._render_error, self._metrics)
                    await response(scope, receive, send_with_id)
            finally:
                self._record(scope, status or CLIENT_CLOSED_REQUEST, time.perf_counter() - start)

    def _request_id(self, scope: Scope) -> str:
        if self._accept_request_id:
            sent = Request(scope).headers.get("x-request-id", "")
            try:
                return str(uuid.UUID(sent))
            except ValueError:
                pass
        return str(uuid.uuid4())

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_label(scope)
        self._metrics.answered(method=_known_method(scope), route=route, status=status, seconds=seconds)
        if route not in _UNLOGGED or status >= 500:
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            if (client := scope.get("client")) is not None:
                fields["client"] = str(client[0])[:64]  # a proxy's word, where one is trusted
            if (user_id := getattr(scope.get("user"), "user_id", None)) is not None:
                fields["user_id"] = user_id
            for name in ("task_id", "error_code"):
                if (value := scope.get(f"s3seg.{name}")) is not None:
                    fields[name] = value
            _log.log(_level(status), "request", extra=fields)


def respond_to_error(scope: Scope, error: Exception, render_error: RenderError, metrics: HttpMetrics) -> Response:
    """Count an error, and write the response that the client gets for it: as its route does, or as the service does."""
    described = error_response(error)
    scope["s3seg.error_code"] = described.code
    metrics.failed(route=route_label(scope), code=described.code)
    response = (scope.get("s3seg.render_error") or render_error)(described, scope["s3seg.request_id"])
    response.headers.update(described.headers)
    return response


def _known_method(scope: Scope) -> str:
    method = scope["method"]
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"


def _level(status: int) -> int:
    """The log level of a request: an error if the service failed, a warning if it refused."""
    if status == 503:  # over capacity, or a part that it depends on, which logs its own error
        return logging.WARNING
    if status >= 500:
        return logging.ERROR
    # clients ask all the time for what is not there, or leave
    return logging.WARNING if status >= 400 and status not in (404, CLIENT_CLOSED_REQUEST) else logging.INFO


def _check_head(scope: Scope) -> None:
    """Raise `RefusedRequestError` if a field that has one value is given twice, or ``Host`` is malformed."""
    seen: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _GIVEN_ONCE:
            if name in seen:
                raise RefusedRequestError(f"the header field {name.decode('ascii')} is given more than once", 400)
            seen[name] = value
    host = seen.get(b"host")
    if host is not None and not _HOST.fullmatch(host):
        raise RefusedRequestError("the header field host is not a host name", 400)

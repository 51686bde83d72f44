"""Building the Starlette application of a service: routes, guard, middleware, and errors in the service's own body."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from s3seg.errors import S3segError
from s3seg.web.errors import REFUSAL
from s3seg.web.metrics import HttpMetrics
from s3seg.web.middleware import CLIENT_CLOSED_REQUEST, RenderError, RequestMiddleware, respond_to_error
from s3seg.web.operations import Guard, Operation, routes_of


def build_app(
    operations: Sequence[Operation],
    *,
    render_error: RenderError,
    metrics: HttpMetrics,
    guard: Guard | None = None,
    lifespan: Lifespan[Starlette] | None = None,
    more_routes: Sequence[BaseRoute] = (),
    accept_request_id: bool = False,
    outer_middleware: Sequence[Middleware] = (),
) -> Starlette:
    """Build the application of a service. Its ``state.refuse`` answers requests that the server refuses.

    Args:
        operations: The table of its routes.
        render_error: Writes errors as the service's own body, 404s of unknown paths, 405s and crashes included.
        metrics: Where its requests are counted.
        guard: Authenticates and limits requests before their handlers run; None for handlers that are open to all.
        lifespan: Context manager that runs around the application.
        more_routes: Routes that are not part of the API, such as static files; they are matched last.
        accept_request_id: Take over a caller's ``X-Request-Id`` if it is a UUID: for services behind our own.
        outer_middleware: Middleware around everything, answers to crashes included, such as CORS.
    """

    async def handle_error(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return respond_to_error(request.scope, error, render_error, metrics)

    async def answer_refused(scope: Scope, receive: Receive, send: Send) -> None:
        response = respond_to_error(scope, scope[REFUSAL], render_error, metrics)
        await response(scope, receive, send)

    middleware = [
        *outer_middleware,
        Middleware(RequestMiddleware, render_error=render_error, metrics=metrics, accept_request_id=accept_request_id),
    ]
    app = Starlette(
        routes=[*routes_of(operations, guard), *more_routes],
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={HTTPException: handle_error, S3segError: handle_error, ClientDisconnect: handle_error},
    )
    app.router.redirect_slashes = False  # a path with a slash too many is a 404 in the service's own body
    app.state.refuse = _wrapped(answer_refused, middleware)
    return app


def _wrapped(app: ASGIApp, middleware: Sequence[Middleware]) -> ASGIApp:
    for cls, args, kwargs in reversed(middleware):
        app = cls(app, *args, **kwargs)
    return app

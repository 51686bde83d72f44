"""The edge as a Starlette application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from s3seg import __version__
from s3seg.api.additions import SignInResponse
from s3seg.api.envelope import ApiResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import RATE_LIMITS, RateTable
from s3seg.web.app import build_app
from s3seg.web.cors import EnvelopedCORSMiddleware
from s3seg.web.envelope import render_error
from s3seg.web.errors import rate_headers
from s3seg.web.metrics import HttpMetrics
from s3seg.web.openapi import openapi_document, openapi_handler
from s3seg.web.operations import Guard, Handler, Operation
from s3seg.web.prefix import PrefixMiddleware
from s3seg.web.routes.account import AccountRoutes
from s3seg.web.routes.concepts import ConceptRoutes
from s3seg.web.routes.objects import ObjectRoutes
from s3seg.web.routes.probes import ProbeRoutes
from s3seg.web.routes.projects import ProjectRoutes
from s3seg.web.routes.results import ResultRoutes
from s3seg.web.routes.sign_in import SignInRoutes
from s3seg.web.routes.tasks import TaskRoutes
from s3seg.web.routes.uploads import UploadRoutes
from s3seg.web.routes.webhooks import WebhookRoutes

_TOKENS = SignInResponse(kind="token", supabase_url=None, supabase_key=None)
_SENT_BY_CLIENTS = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Prefer")
_EXPOSED = ("X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "Location", "ETag", "Preference-Applied")


def build_edge_app(
    edge: Edge,
    *,
    rates: RateTable = RATE_LIMITS,
    sign_in: SignInResponse = _TOKENS,
    cors_origins: Sequence[str] = (),
    cors_headers: Sequence[str] = ("*",),
    metrics: HttpMetrics | None = None,
    lifespan: Lifespan[Starlette] | None = None,
    prefix: str = "",
    more_routes: Sequence[BaseRoute] = (),
    openapi: Handler | None = None,
) -> Starlette:
    """Build the application.

    Args:
        edge: The use cases.
        rates: The rate limits that /me reports; they must be those of the edge's limiter.
        sign_in: How users get their tokens, for /auth.
        cors_origins: Origins whose pages may call the API; "*" for all.
        cors_headers: Request headers that these pages may send beside those of the API; "*" for all.
        metrics: Where requests are counted.
        lifespan: Context manager that runs around the application.
        prefix: Path under which a proxy serves the application, such as ``/seg``; see `PrefixMiddleware`.
        more_routes: Routes that are not part of the API, such as the playground.
        openapi: Answers /openapi.json: ``state.openapi`` of an earlier application, where each request has its own, so
            that the document is made once.
    """
    metrics = metrics or HttpMetrics()

    openapi = openapi or openapi_handler(
        lambda: openapi_document(
            operations,
            title="s3seg edge",
            version=__version__,
            description=(
                "Name what you are looking for, get its masks. Every response has the envelope "
                "`{success, data, error, meta}`; `error.code` is stable, `error.message` is for people."
            ),
            security_scheme={"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            error_model=ApiResponse[None],
        )
    )

    operations = (
        *UploadRoutes(edge).operations(),
        *TaskRoutes(edge).operations(),
        *ResultRoutes(edge).operations(),
        *ProjectRoutes(edge).operations(),
        *WebhookRoutes(edge).operations(),
        *ConceptRoutes(edge).operations(),
        *AccountRoutes(edge, rates).operations(),
        *SignInRoutes(sign_in).operations(),
        *ObjectRoutes(edge).operations(),
        *ProbeRoutes(edge, metrics, openapi).operations(),
    )
    app = build_app(
        operations,
        guard=_user_guard(edge),
        render_error=render_error,
        metrics=metrics,
        lifespan=lifespan,
        more_routes=more_routes,
        outer_middleware=[
            Middleware(PrefixMiddleware, prefix=prefix),
            *([_cors(cors_origins, cors_headers)] if cors_origins else []),
        ],
    )
    app.state.openapi = openapi
    return app


def _user_guard(edge: Edge) -> Guard:
    """Authenticate the caller, then count the request, and only then let the handler read the body."""

    async def guard(request: Request, operation: Operation) -> Response:
        if not operation.secured:
            return await operation.handler(request)
        caller = await edge.authenticate(request.headers.get("authorization"))
        request.scope["user"] = caller  # Starlette's `request.user`
        if operation.action is None:
            return await operation.handler(request)
        rate = await edge.rate_limits.count(caller, operation.action)
        response = await operation.handler(request)
        response.headers.update(rate_headers(rate))
        return response

    return guard


def _cors(origins: Sequence[str], headers: Sequence[str]) -> Middleware:
    return Middleware(
        EnvelopedCORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=[*_SENT_BY_CLIENTS, *headers],
        expose_headers=list(_EXPOSED),
        max_age=86_400,
    )

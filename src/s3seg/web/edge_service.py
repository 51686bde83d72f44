"""The edge as a Starlette application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from s3seg.api.envelope import ApiResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import RATE_LIMITS, RateTable
from s3seg.version import __version__
from s3seg.web.edge import EdgeRoutes, render_error
from s3seg.web.edge_operations import edge_operations
from s3seg.web.metrics import HttpMetrics
from s3seg.web.openapi import openapi_document
from s3seg.web.service import build_service

_EXPOSED = ("X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "Location", "ETag", "Preference-Applied")


def edge_service(
    edge: Edge,
    *,
    rates: RateTable = RATE_LIMITS,
    cors_origins: Sequence[str] = (),
    metrics: HttpMetrics | None = None,
    lifespan: Lifespan[Starlette] | None = None,
    more_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Make the application.

    Args:
        edge: The use cases.
        rates: The table of limits, as /me tells it.
        cors_origins: Origins whose pages may call it; "*" for all.
        metrics: Where requests are counted.
        lifespan: What begins and ends with it.
        more_routes: Routes that are not part of the API: the playground.
    """
    metrics = metrics or HttpMetrics()
    document: dict[str, object] = {}

    async def openapi(request: Request) -> Response:
        if not document:
            document.update(
                openapi_document(
                    operations,
                    title="s3seg edge",
                    version=__version__,
                    description=(
                        "Say what you are looking for, get its masks. Every answer has the envelope "
                        "`{success, data, error, meta}`; `error.code` is stable, `error.message` is for people."
                    ),
                    security_scheme={"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                    error_model=ApiResponse[None],
                )
            )
        return JSONResponse(document)

    operations = edge_operations(EdgeRoutes(edge, rates=rates), metrics, openapi)
    return build_service(
        operations,
        render_error=render_error,
        metrics=metrics,
        lifespan=lifespan,
        more_routes=more_routes,
        outer_middleware=[_cors(cors_origins)] if cors_origins else [],
    )


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Prefer"],
        expose_headers=list(_EXPOSED),
        max_age=86_400,
    )

"""The gpu service as a Starlette application: the contract's inference API, probes and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Lifespan

from s3seg import __version__
from s3seg.api.envelope import ErrorBody, GpuErrorResponse
from s3seg.inference.engine import Engine
from s3seg.web.app import build_app
from s3seg.web.errors import ErrorResponse
from s3seg.web.gpu_metrics import EngineGauges
from s3seg.web.keys import ApiKeys
from s3seg.web.metrics import HttpMetrics
from s3seg.web.openapi import openapi_document, openapi_handler
from s3seg.web.operations import Guard, Operation
from s3seg.web.routes.gpu_probes import GpuProbeRoutes
from s3seg.web.routes.predictions import PredictionRoutes


def build_gpu_app(
    engine: Engine,
    *,
    keys: Sequence[str],
    metrics: HttpMetrics,
    lifespan: Lifespan[Starlette] | None = None,
    more_operations: Sequence[Operation] = (),
) -> Starlette:
    """Build the application.

    Args:
        engine: Runs the predictions.
        keys: Accepted values of ``X-API-Key``; with none, the routes are open.
        metrics: Where requests are counted; the engine's gauges are registered there too.
        lifespan: Context manager that runs around the application.
        more_operations: Operations beside the contract's.
    """
    openapi = openapi_handler(
        lambda: openapi_document(
            operations,
            title="s3seg gpu service",
            version=__version__,
            description="Inference only; called by the edge, never by users.",
            security_scheme={"type": "apiKey", "in": "header", "name": "X-API-Key"},
            error_model=GpuErrorResponse,
        )
    )

    metrics.registry.register(EngineGauges(engine))
    operations = (
        *GpuProbeRoutes(engine, metrics, openapi).operations(),
        *PredictionRoutes(engine).operations(),
        *more_operations,
    )
    return build_app(
        operations,
        guard=_key_guard(ApiKeys(keys)),
        render_error=_render_error,
        metrics=metrics,
        lifespan=lifespan,
        accept_request_id=True,
    )


def _key_guard(keys: ApiKeys) -> Guard:
    """Require one of the keys, where the operation says."""

    async def guard(request: Request, operation: Operation) -> Response:
        if operation.secured and not operation.checks_key:
            keys.check(request, operation.key_headers)
        return await operation.handler(request)

    return guard


def _render_error(error: ErrorResponse, request_id: str) -> Response:
    body = GpuErrorResponse(error=ErrorBody(code=error.code, message=error.message))
    return JSONResponse(body.model_dump(), error.status)

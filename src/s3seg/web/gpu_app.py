"""The gpu service as a Starlette application: the contract's inference API, probes and metrics."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Lifespan

from s3seg import __version__
from s3seg.api.envelope import ErrorBody, GpuErrorResponse
from s3seg.errors import AuthInvalidError, AuthRequiredError
from s3seg.inference.engine import Engine
from s3seg.web.app import build_app
from s3seg.web.errors import ErrorResponse
from s3seg.web.gpu_metrics import EngineGauges
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
) -> Starlette:
    """Build the application.

    Args:
        engine: Runs the predictions.
        keys: Accepted values of ``X-API-Key``; with none, the routes are open.
        metrics: Where requests are counted; the engine's gauges are registered there too.
        lifespan: Context manager that runs around the application.
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
    )
    return build_app(
        operations,
        guard=_key_guard(keys),
        render_error=_render_error,
        metrics=metrics,
        lifespan=lifespan,
        accept_request_id=True,
    )


def _key_guard(keys: Sequence[str]) -> Guard:
    """Require one of the keys in ``X-API-Key``."""
    accepted = [key.encode() for key in keys]

    async def guard(request: Request, operation: Operation) -> Response:
        if accepted and operation.secured:
            sent = request.headers.get("x-api-key")
            if not sent:
                raise AuthRequiredError("no API key; send it in the header X-API-Key")
            raw = sent.encode("latin-1")  # the bytes as they were sent
            # every key is compared, so that the time taken does not reveal which one matched
            if not sum(hmac.compare_digest(raw, key) for key in accepted):
                raise AuthInvalidError("the key in X-API-Key is not valid")
        return await operation.handler(request)

    return guard


def _render_error(error: ErrorResponse, request_id: str) -> Response:
    body = GpuErrorResponse(error=ErrorBody(code=error.code, message=error.message))
    return JSONResponse(body.model_dump(), error.status)

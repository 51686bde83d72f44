"""Probes of the gpu service: liveness, readiness, metrics and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s3seg.api.additions import ReadyResponse
from s3seg.api.gpu import HealthResponse
from s3seg.inference.engine import Engine, ModelState
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Handler, Operation, ResponseSpec
from s3seg.web.routes.metrics_and_openapi import metrics_and_openapi


class GpuProbeRoutes:
    """GET /health, /ready, /metrics and /openapi.json, open to all.

    Args:
        engine: What is probed.
        metrics: Answers /metrics.
        openapi: Answers /openapi.json.
    """

    def __init__(self, engine: Engine, metrics: HttpMetrics, openapi: Handler) -> None:
        self._engine = engine
        self._metrics = metrics
        self._openapi = openapi

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/health",
                handler=self.health,
                summary="Check that the process answers, and what is loaded",
                responses={200: ResponseSpec(description="It answers", model=HealthResponse)},
                secured=False,
                tag="state",
            ),
            Operation(
                method="GET",
                path="/ready",
                handler=self.ready,
                summary="Check that requests can be served",
                responses={
                    200: ResponseSpec(description="Requests can be served", model=ReadyResponse),
                    503: ResponseSpec(
                        description="Requests cannot be served now; the message says why", model=ReadyResponse
                    ),
                },
                secured=False,
                tag="state",
            ),
            *metrics_and_openapi(self._metrics, self._openapi, tag="state"),
        )

    async def health(self, request: Request) -> Response:
        """Return the state of the model and of its device."""
        engine = self._engine
        loaded = engine.state is ModelState.READY
        device = engine.network.device_status() if loaded else None
        return JSONResponse(
            HealthResponse(
                status=engine.state.value,
                model_loaded=loaded,
                gpu_available=device is not None and device.gpu,
                gpu_name=None if device is None else device.name,
                vram_used_mb=None if device is None else device.memory_used_mb,
                vram_total_mb=None if device is None else device.memory_total_mb,
            ).model_dump()
        )

    async def ready(self, request: Request) -> Response:
        """Check every part; 503 if one of them does not work, or the worker is stopping."""
        parts = dict(await self._engine.check())
        if self._engine.worker.draining:
            parts["worker"] = "stopping"
        problems = [f"{name}: {problem}" for name, problem in parts.items() if problem != "ok"]
        body = ReadyResponse(ready=not problems, parts=parts, message="; ".join(problems) or None)
        return JSONResponse(body.model_dump(), 503 if problems else 200)

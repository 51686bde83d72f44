"""Probes of the edge: liveness, readiness, metrics and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg import __version__
from s3seg.api.additions import EdgeHealthResponse, ReadyResponse
from s3seg.edge import Edge
from s3seg.errors import UnavailableError
from s3seg.web.envelope import enveloped, success
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Handler, Operation
from s3seg.web.routes.metrics_and_openapi import metrics_and_openapi


class ProbeRoutes:
    """GET /health, /ready, /metrics and /openapi.json, open to all.

    Args:
        edge: The use cases.
        metrics: Answers /metrics.
        openapi: Answers /openapi.json.
    """

    def __init__(self, edge: Edge, metrics: HttpMetrics, openapi: Handler) -> None:
        self._edge = edge
        self._metrics = metrics
        self._openapi = openapi

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/health",
                handler=self.health,
                summary="Check that the process answers",
                responses={200: enveloped(EdgeHealthResponse, "It answers")},
                secured=False,
                tag="operation",
            ),
            Operation(
                method="GET",
                path="/ready",
                handler=self.ready,
                summary="Check that requests can be served",
                responses={200: enveloped(ReadyResponse, "Requests can be served")},
                errors=("UNAVAILABLE",),
                secured=False,
                tag="operation",
            ),
            *metrics_and_openapi(self._metrics, self._openapi, tag="operation"),
        )

    async def health(self, request: Request) -> Response:
        """Answer: the process is alive."""
        return success(request, EdgeHealthResponse(version=__version__, direct_uploads=self._edge.takes_direct_uploads))

    async def ready(self, request: Request) -> Response:
        """Check every part; 503 if one that requests need does not work."""
        checked = await self._edge.check()
        problems = [f"{name}: {problem}" for name, problem in checked.items() if problem is not None]
        if problems:
            raise UnavailableError("; ".join(problems))
        return success(request, ReadyResponse(ready=True, parts=dict.fromkeys(checked, "ok"), message=None))

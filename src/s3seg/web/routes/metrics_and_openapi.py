"""The routes that are the same in both services: GET /metrics and GET /openapi.json."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST

from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Handler, Operation, ResponseSpec


def metrics_and_openapi(metrics: HttpMetrics, openapi: Handler, *, tag: str) -> Sequence[Operation]:
    """Return the table of these routes, which are open to all.

    Args:
        metrics: Answers /metrics.
        openapi: Answers /openapi.json.
        tag: Group in the documentation of the service.
    """
    return (
        Operation(
            method="GET",
            path="/metrics",
            handler=metrics.endpoint,
            summary="Get Prometheus metrics",
            responses={
                200: ResponseSpec(description="Metrics in the Prometheus text format", content_type=CONTENT_TYPE_LATEST)
            },
            secured=False,
            tag=tag,
        ),
        Operation(
            method="GET",
            path="/openapi.json",
            handler=openapi,
            summary="Get this document",
            responses={200: ResponseSpec(description="OpenAPI 3.1")},
            secured=False,
            tag=tag,
        ),
    )

"""Prometheus metrics: one registry an application, so that two of them in a process do not mix."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response


class HttpMetrics:
    """What every service measures of its requests.

    Routes are labelled by their template, never by what a client sent, so that labels stay few.

    Attributes:
        registry: Where a service registers what else it measures.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._seconds = Histogram(
            "s3seg_http_request_seconds",
            "Time from the first byte of a request to the last of its answer",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self._known: dict[tuple[str, str, int], Histogram] = {}  # finding one by its labels costs more than observing
        self._errors = Counter(
            "s3seg_http_errors", "Error answers by the contract's code", ("route", "code"), registry=self.registry
        )

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        labels = (method, route, status)
        histogram = self._known.get(labels)
        if histogram is None:
            histogram = self._known[labels] = self._seconds.labels(*labels)
        histogram.observe(seconds)

    def failed(self, *, route: str, code: str) -> None:
        """Count an error answer."""
        self._errors.labels(route, code).inc()

    async def endpoint(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

"""Prometheus metrics of requests, in a registry per application, so that two in one process do not mix."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

_WRITTEN_TTL_S = 1.0


class HttpMetrics:
    """Counts the requests of a service.

    Routes are labelled by their template, never by what a client sent, so that the number of labels stays small.

    Attributes:
        registry: Registry for the service's other metrics.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._before_scrape: list[Callable[[], Awaitable[None]]] = []
        self._seconds = Histogram(
            "s3seg_http_request_seconds",
            "Time from the first byte of a request to the last of its response",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        # looking one up by its labels takes longer than observe()
        self._known: dict[tuple[str, str, int], Histogram] = {}
        self._errors = Counter(
            "s3seg_http_errors", "Error responses by the contract's code", ("route", "code"), registry=self.registry
        )
        self._writing = asyncio.Lock()
        self._written = b""
        self._written_until = -math.inf

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response."""
        labels = (method, route, status)
        histogram = self._known.get(labels)
        if histogram is None:
            histogram = self._known[labels] = self._seconds.labels(*labels)
        histogram.observe(seconds)

    def failed(self, *, route: str, code: str) -> None:
        """Count an error response."""
        self._errors.labels(route, code).inc()

    def add(self, collector: Collector, *, refresh: Callable[[], Awaitable[None]]) -> None:
        """Add a collector whose ``refresh`` is awaited before each scrape; it must not raise."""
        self.registry.register(collector)
        self._before_scrape.append(refresh)

    async def endpoint(self, request: Request) -> Response:
        """GET /metrics. An answer is good for a second, as anybody may ask and it takes milliseconds to write."""
        async with self._writing:
            if time.monotonic() >= self._written_until:
                for refresh in self._before_scrape:
                    await refresh()
                self._written = generate_latest(self.registry)
                self._written_until = time.monotonic() + _WRITTEN_TTL_S
        return Response(self._written, media_type=CONTENT_TYPE_LATEST)

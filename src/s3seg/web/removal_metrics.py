"""A Prometheus counter of what the maintenance of a service has removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from s3seg.tasks.maintenance import Removals


class RemovalCounter(Collector):
    """``s3seg_removed_total``, by kind; of all services on the same data, the one that did the job counts it.

    Args:
        removals: The counts, which the jobs change.
    """

    def __init__(self, removals: Removals) -> None:
        self._removals = removals

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter, as `prometheus_client` asks for it."""
        counter = CounterMetricFamily(
            "s3seg_removed",
            "Images, results, objects and accounts that had ended or were deleted, and garbage",
            labels=["kind"],
        )
        for kind, count in asdict(self._removals).items():
            counter.add_metric([kind], count)
        yield counter

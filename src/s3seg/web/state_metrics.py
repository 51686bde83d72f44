"""Prometheus gauges of a service's parts and of the queue, read when they are scraped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from s3seg.errors import S3segError
from s3seg.tasks.backlog import Backlog

_FRESH_S = 2.0
_TIMEOUT_S = 5.0


class StateGauges(Collector):
    """Gauges that say which parts of a service work, and how much work waits.

    They are read from databases, and anybody may ask for metrics, so what was read is used for two seconds.

    Args:
        check: Returns the health of each part: None or ``ok`` if it works.
        backlog: Returns the backlog; None if this service may not see the tasks of all users.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[Mapping[str, str | None]]],
        backlog: Callable[[], Awaitable[Backlog]] | None = None,
    ) -> None:
        self._check = check
        self._read_backlog = backlog
        self._parts: Mapping[str, str | None] = {}
        self._backlog: Backlog | None = None
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the state, unless it was read just now. Never raises: what cannot be read has no gauge."""
        async with self._reading:
            if time.monotonic() < self._fresh_until:
                return
            self._parts, self._backlog = await asyncio.gather(self._check(), self._backlog_or_none())
            self._fresh_until = time.monotonic() + _FRESH_S

    async def _backlog_or_none(self) -> Backlog | None:
        if self._read_backlog is None:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._read_backlog()
        except (S3segError, TimeoutError):  # s3seg_part_up says which part does not work
            return None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, as `prometheus_client` asks for them."""
        parts = GaugeMetricFamily("s3seg_part_up", "1 if the part of the service works", labels=["part"])
        for name, problem in self._parts.items():
            parts.add_metric([name], float(problem in (None, "ok")))
        yield parts
        if (backlog := self._backlog) is not None:
            yield GaugeMetricFamily("s3seg_tasks_waiting", "Tasks that no worker holds", value=backlog.waiting)
            yield GaugeMetricFamily("s3seg_tasks_running", "Tasks that a worker holds", value=backlog.running)
            yield GaugeMetricFamily("s3seg_workers_busy", "Workers that hold a task", value=backlog.workers)
            yield GaugeMetricFamily(
                "s3seg_oldest_wait_seconds", "Age of the oldest task that no worker holds", value=backlog.oldest_wait_s
            )
            yield GaugeMetricFamily(
                "s3seg_tasks_done_per_second", "Tasks done, on average over five minutes", value=backlog.rate
            )

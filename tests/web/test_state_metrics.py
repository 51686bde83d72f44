"""Gauges of parts and queue."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from s3seg.errors import UnavailableError
from s3seg.tasks.backlog import Backlog
from s3seg.web.state_metrics import StateGauges

pytestmark = pytest.mark.anyio
BACKLOG = Backlog(waiting=3, running=2, workers=1, oldest_wait_s=4.5, ended_recently=600)


async def healthy() -> dict[str, str | None]:
    return {"objects": None, "model": "ok", "tasks": "the disk is full"}


async def scrape(gauges: StateGauges) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(gauges)
    await gauges.refresh()
    return registry


async def test_parts_and_backlog_become_gauges() -> None:
    async def backlog() -> Backlog:
        return BACKLOG

    registry = await scrape(StateGauges(healthy, backlog))
    up = {part: registry.get_sample_value("s3seg_part_up", {"part": part}) for part in ("objects", "model", "tasks")}
    assert up == {"objects": 1, "model": 1, "tasks": 0}
    assert registry.get_sample_value("s3seg_tasks_waiting") == 3
    assert registry.get_sample_value("s3seg_tasks_running") == 2
    assert registry.get_sample_value("s3seg_workers_busy") == 1
    assert registry.get_sample_value("s3seg_oldest_wait_seconds") == 4.5
    assert registry.get_sample_value("s3seg_tasks_done_per_second") == 2


async def test_a_backlog_that_cannot_be_read_has_no_gauge() -> None:
    async def backlog() -> Backlog:
        raise UnavailableError("the database does not respond")

    registry = await scrape(StateGauges(healthy, backlog))
    assert registry.get_sample_value("s3seg_tasks_waiting") is None
    assert registry.get_sample_value("s3seg_part_up", {"part": "objects"}) == 1
    registry = await scrape(StateGauges(healthy))
    assert registry.get_sample_value("s3seg_tasks_waiting") is None


async def test_many_scrapes_read_the_database_once() -> None:
    reads = 0

    async def backlog() -> Backlog:
        nonlocal reads
        reads += 1
        return BACKLOG

    gauges = StateGauges(healthy, backlog)
    for _ in range(5):
        await gauges.refresh()
    assert reads == 1

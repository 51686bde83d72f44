"""Make metrics.md from what is registered: ``python docs/reference/make_metrics.py > docs/reference/metrics.md``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from s3seg.app import Settings, gpu_app
from s3seg.tasks.backlog import Backlog
from s3seg.tasks.maintenance import Removals
from s3seg.web.gpu_metrics import EngineGauges, PrometheusMetrics
from s3seg.web.metrics import HttpMetrics
from s3seg.web.removal_metrics import RemovalCounter
from s3seg.web.state_metrics import StateGauges


def page() -> str:
    """A row for each metric."""
    rows = {"both services": _rows(_of_both()), "the gpu service": _rows(_of_inference())}
    lines = [
        f"| `{name}` | {kind} | {labels} | {said} | {service} |"
        for service, found in rows.items()
        for name, kind, labels, said in found
    ]
    return (
        "# Metrics\n\n"
        "What `/metrics` of the services answers, in the Prometheus text format; made from what they register\n"
        "by `docs/reference/make_metrics.py`. Histograms have the suffixes `_bucket`, `_count` and `_sum`.\n"
        "Which metrics to watch, and alert rules for them, is in [operate the services](../how-to/operate.md).\n"
        "Gauges of tasks are there only in services that may see the tasks of all users: the gpu service, and an\n"
        "edge whose tasks are in SQLite. Gauges of device memory are there only for CUDA devices.\n\n"
        "| metric | type | labels | | of |\n|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def _of_both() -> CollectorRegistry:
    async def check() -> dict[str, str | None]:
        return {"tasks": None}

    async def backlog() -> Backlog:
        return Backlog(waiting=0, running=0, workers=0, oldest_wait_s=0, ended_recently=0)

    metrics = HttpMetrics()
    state = StateGauges(check, backlog)
    metrics.add(state, refresh=state.refresh)
    metrics.registry.register(RemovalCounter(Removals()))
    asyncio.run(state.refresh())
    return metrics.registry


def _of_inference() -> CollectorRegistry:
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    with TemporaryDirectory() as folder:
        settings: Any = Settings(_env_file=None, data_dir=Path(folder), checkpoint="embedded")  # type: ignore[call-arg]
        registry.register(EngineGauges(gpu_app(settings, insecure_no_key=True).state.engine))
    return registry


def _rows(registry: CollectorRegistry) -> Iterable[tuple[str, str, str, str]]:
    """Name, type, labels and description of each metric. prometheus_client has no public way to ask for labels."""
    for collector in registry._collector_to_names:
        labels_of_it = getattr(collector, "_labelnames", None)
        for family in collector.collect():
            labels = labels_of_it if labels_of_it is not None else _labels(family)
            name = family.name + ("_total" if family.type == "counter" else "")
            yield name, family.type, ", ".join(f"`{label}`" for label in labels), family.documentation


def _labels(family: Metric) -> Iterable[str]:
    return getattr(family, "_labelnames", ())


if __name__ == "__main__":
    print(page(), end="")

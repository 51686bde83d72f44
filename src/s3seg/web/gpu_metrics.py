"""Prometheus metrics of the gpu service, beside those of its requests."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from s3seg.inference.engine import Engine, ModelState

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class PrometheusMetrics:
    """`InferenceMetrics` in a Prometheus registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stages = Histogram(
            "s3seg_stage_seconds",
            "Time that a prediction spent in a stage; wait is the queue before the network",
            ("stage",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._batch_prompts = Histogram(
            "s3seg_batch_prompts", "Prompts decoded in one batch", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self._encoded = Counter("s3seg_images_encoded", "Pictures that the network encoded", registry=registry)
        self._passes = Counter("s3seg_image_forward_passes", "Forward passes of the image encoder", registry=registry)
        self._splits = Counter(
            "s3seg_batches_split", "Batches that failed and were retried in parts", registry=registry
        )
        self._cache = Counter(
            "s3seg_embedding_cache",
            "Pictures whose embedding was cached (hit) or not (miss)",
            ("outcome",),
            registry=registry,
        )
        self._ended = Counter(
            "s3seg_predictions", "Attempts by outcome: DONE or an error code", ("ended",), registry=registry
        )

    def stage(self, name: str, seconds: float) -> None:
        """Observe the seconds that a prediction spent in a stage."""
        self._stages.labels(name).observe(seconds)

    def batch(self, *, pictures: int, prompts: int) -> None:
        """Count a batch: pictures that were encoded (0 if all were cached) and prompts that were decoded."""
        self._batch_prompts.observe(prompts)
        if pictures:
            self._encoded.inc(pictures)
            self._passes.inc()

    def split(self) -> None:
        """Count a batch that failed and is retried in parts."""
        self._splits.inc()

    def cache(self, *, hit: bool) -> None:
        """Count a look-up in the embedding cache."""
        self._cache.labels("hit" if hit else "miss").inc()

    def ended(self, code: str) -> None:
        """Count an attempt by its outcome: ``DONE`` or an error code."""
        self._ended.labels(code).inc()


class EngineGauges(Collector):
    """Gauges of an engine's state, read when Prometheus scrapes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, as `prometheus_client` asks for them."""
        engine = self._engine
        ready = engine.state is ModelState.READY
        yield GaugeMetricFamily("s3seg_model_loaded", "1 once the model is ready", value=float(ready))
        yield GaugeMetricFamily("s3seg_load", "Requests and tasks in progress", value=engine.worker.load)
        yield GaugeMetricFamily(
            "s3seg_embedding_cache_bytes", "Device memory used by cached embeddings", value=engine.cache_bytes
        )
        up = GaugeMetricFamily(
            "s3seg_network_up", "1 if the network on a device can compute", labels=("network", "device")
        )
        used = GaugeMetricFamily("s3seg_gpu_memory_used_bytes", "Device memory in use", labels=("network", "device"))
        total = GaugeMetricFamily("s3seg_gpu_memory_total_bytes", "Device memory", labels=("network", "device"))
        for number, network in enumerate(engine.networks):
            labels, status = [str(number), network.model.device], network.device_status()
            up.add_metric(labels, float(network.problem is None))
            if status.memory_used_mb is not None and status.memory_total_mb is not None:
                used.add_metric(labels, status.memory_used_mb * 2**20)
                total.add_metric(labels, status.memory_total_mb * 2**20)
        yield from (up, used, total)

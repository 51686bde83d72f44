"""The inference engine, and the decoding processes of both services, as the settings say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from s3seg.app.parts import Parts
from s3seg.app.settings import Settings

if TYPE_CHECKING:
    from s3seg.decoding import DecodingPool
    from s3seg.inference.engine import Engine
    from s3seg.inference.metrics import InferenceMetrics
    from s3seg.inference.network import Network


def make_engine(
    parts: Parts,
    *,
    metrics: InferenceMetrics | None = None,
    load: Callable[[], Network | Sequence[Network]] | None = None,
    decode_in_processes: bool = True,
) -> Engine:
    """Build the inference engine on the adapters that the settings choose; it is not started.

    The checkpoint is found here, once, so that a missing one is told at once; its weights are loaded by the engine.

    Args:
        parts: The adapters.
        metrics: Receives measurements.
        load: Loads the network, instead of the one that the settings name.
        decode_in_processes: Read pictures in processes that can be killed, as the settings say; otherwise in threads.

    Raises:
        CheckpointError: The checkpoint that the settings name is not on this machine, or not complete.
    """
    from s3seg.inference.engine import Engine, EngineOptions
    from s3seg.inference.network_queue import Limits
    from s3seg.inference.worker import WorkerLimits

    settings = parts.settings
    options = EngineOptions(
        worker=WorkerLimits(
            claimed=settings.claimed_at_once,
            admitted=settings.admitted_at_once,
            lease_s=settings.lease_s,
            poll_s=settings.poll_s,
            with_tiles=settings.tiled_at_once,
        ),
        batches=Limits(
            pictures=settings.batch_images,
            prompts=settings.batch_prompts,
            cache_bytes=settings.embedding_cache_mb * 2**20,
            tiles=settings.max_tiles,
        ),
        network_threads=2 if settings.networks_in_processes else 1,
        retry_after_s=settings.retry_after_s,
        **({} if settings.cpu_threads is None else {"cpu_threads": settings.cpu_threads}),
    )
    return Engine(
        queue=parts.task_queue,
        objects=parts.objects,
        load=load or _network_loader(settings),
        decoding=decoding_pool(settings, "s3seg.inference.decoding:read_resized", wait_s=None)
        if decode_in_processes
        else None,
        options=options,
        metrics=metrics,
        **_woken_by(parts),
    )


def decoding_pool(settings: Settings, function: str, *, wait_s: float | None) -> DecodingPool | None:
    """Make the decoding processes of a service as the settings say; none of them is started. None if there are none.

    Args:
        settings: Their number and limits.
        function: What they run, as for `DecodingPool`.
        wait_s: Seconds that a picture waits for a free process; None waits without limit.
    """
    from s3seg.decoding import DecodingOptions, DecodingPool

    if not settings.decode_processes:
        return None
    options = DecodingOptions(
        processes=settings.decode_processes,
        deadline_s=settings.decode_deadline_s,
        give_up_s=max(60.0, 3 * settings.decode_deadline_s),
        wait_s=wait_s,
        memory=settings.decode_memory_mb * 10**6,
    )
    return DecodingPool(function, options)


def _network_loader(settings: Settings) -> Callable[[], Sequence[Network]]:
    """Return what loads the network on each of the devices that the settings name."""
    from s3seg import checkpoints

    checkpoint = checkpoints.resolve(settings.checkpoint)
    in_processes = settings.networks_in_processes

    def load_on(device: str) -> Network:
        from s3seg.app.accelerator import start_process
        from s3seg.inference.stages import Sam3Network

        return Sam3Network(
            checkpoint,
            device=device,
            dtype=settings.dtype,
            max_pixels=int(settings.max_megapixels * 1e6),
            compile=settings.compile,
            predictor=start_process(checkpoint, device, settings) if in_processes else None,
        )

    def load() -> Sequence[Network]:
        if len(settings.devices) == 1:
            return [load_on(settings.devices[0])]
        with ThreadPoolExecutor(len(settings.devices)) as threads:
            loading = [threads.submit(load_on, device) for device in settings.devices]
        failures = [one.exception() for one in loading if one.exception() is not None]
        networks = [one.result() for one in loading if one.exception() is None]
        if failures and failures[0] is not None:
            for network in networks:
                network.close()
            raise failures[0]
        return networks

    return load


def _woken_by(parts: Parts) -> dict[str, Callable[[float], Awaitable[object]]]:
    """Let an edge in the same process wake the claim loop; otherwise the loop polls."""
    from s3seg.adapters.memory import MemoryNotifier

    if parts.settings.inference == "memory" and isinstance(parts.notifier, MemoryNotifier):
        return {"wait_for_work": parts.notifier.wait}
    return {}

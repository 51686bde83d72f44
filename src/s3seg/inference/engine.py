"""The inference side of a process: the network, loaded in the background, and the worker that feeds it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO

from PIL import Image

from s3seg.errors import CheckpointError, S3segError
from s3seg.inference.batcher import Batcher, Limits
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.inference.pipeline import Pipeline
from s3seg.inference.stages import Network
from s3seg.inference.worker import Worker, WorkerLimits
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.health import health_check
from s3seg.tasks.ports import ObjectStore, TaskQueue

_log = logging.getLogger(__name__)
_CHECKED_FOR_S = 2.0


class ModelState(StrEnum):
    """Where the network stands."""

    LOADING = "loading"
    READY = "ok"
    FAILED = "failed"


def _cpu_threads() -> int:
    return max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The engine's numbers.

    Attributes:
        worker: See `WorkerLimits`.
        batches: See `Limits`.
        cpu_threads: Threads for reading pictures and making masks.
        retry_after_s: How long a failed attempt waits before the next, doubling with each.
    """

    worker: WorkerLimits = field(default_factory=WorkerLimits)
    batches: Limits = field(default_factory=Limits)
    cpu_threads: int = field(default_factory=_cpu_threads)
    retry_after_s: float = 2.0


class Engine:
    """Everything between the ports and the network. Made and used on one event loop.

    Args:
        queue: Where tasks wait.
        objects: Where images are and masks go.
        load: Loads the network; called on a thread.
        options: See `EngineOptions`.
        meter: Who measures.
        wait_for_work: See `Worker`.
    """

    def __init__(
        self,
        *,
        queue: TaskQueue,
        objects: ObjectStore,
        load: Callable[[], Network],
        options: EngineOptions | None = None,
        meter: InferenceMetrics | None = None,
        wait_for_work: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        options = options or EngineOptions()
        self.queue = queue
        self._objects = objects
        self._load = load
        self._options = options
        self._meter = meter or NoMetrics()
        self._cpu = ThreadPoolExecutor(options.cpu_threads, thread_name_prefix="s3seg-cpu")
        self._network: Network | None = None
        self._batcher: Batcher | None = None
        self._failure: str | None = None
        self._loading: asyncio.Task[None] | None = None
        self._checked: tuple[float, dict[str, str]] = (-_CHECKED_FOR_S, {})
        pipeline = Pipeline(
            queue,
            objects,
            self,
            cpu=self._cpu,
            lease_s=options.worker.lease_s,
            retry_after_s=options.retry_after_s,
            meter=self._meter,
        )
        self.worker = Worker(
            queue,
            pipeline,
            ready=lambda: self.state is ModelState.READY,
            limits=options.worker,
            wait_for_work=wait_for_work,
        )

    # ---- the network ----

    @property
    def state(self) -> ModelState:
        """Where the network stands: ready means loaded and warm."""
        if self._failure is not None:
            return ModelState.FAILED
        return ModelState.LOADING if self._loading is None or not self._loading.done() else ModelState.READY

    @property
    def failure(self) -> str | None:
        """Why the network could not be loaded."""
        return self._failure

    @property
    def network(self) -> Network:
        """The network.

        Raises:
            CheckpointError: It is not loaded and warm.
        """
        if self._network is None or self.state is not ModelState.READY:
            raise CheckpointError(f"the model is not loaded ({self.state})")
        return self._network

    @property
    def cache_bytes(self) -> int:
        """Memory that embeddings of earlier pictures take."""
        return 0 if self._batcher is None else self._batcher.cache_bytes

    @property
    def threshold(self) -> float:
        """See `Segmenting.threshold`."""
        return self.network.threshold

    async def segment(
        self, content: bytes, prompts: Sequence[str], *, name: str, on_begin: Callable[[], None] = lambda: None
    ) -> list[Segmentation]:
        """See `Batcher.segment`."""
        if self._batcher is None:
            raise CheckpointError("the model is not loaded")
        return await self._batcher.segment(content, prompts, name=name, on_begin=on_begin)

    # ---- its life ----

    def start(self) -> None:
        """Begin to load the network, and to claim what waits as soon as it is warm."""
        self._loading = asyncio.ensure_future(self._load_and_warm())
        self.worker.start()

    async def loaded(self) -> None:
        """Return once the network is loaded and warm.

        Raises:
            CheckpointError: It cannot be loaded.
        """
        if self._loading is not None:
            await asyncio.shield(self._loading)
        if self._failure is not None:
            raise CheckpointError(self._failure)

    async def aclose(self, *, grace_s: float = 0.0) -> None:
        """Drain the worker (see `Worker.aclose`), then end the threads."""
        await self.worker.aclose(grace_s=grace_s)
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._batcher is not None:
            await self._batcher.aclose()
        self._cpu.shutdown(wait=False, cancel_futures=True)

    async def check(self) -> Mapping[str, str]:
        """What each part says: ``ok``, or what is wrong with it. Asked at most every two seconds."""
        asked_at, said = self._checked
        if time.monotonic() - asked_at >= _CHECKED_FOR_S:
            objects, tasks = await asyncio.gather(health_check(self._objects), health_check(self.queue))
            said = {"objects": objects or "ok", "tasks": tasks or "ok"}
            self._checked = (time.monotonic(), said)
        model = "it cannot be loaded; the log says why" if self._failure is not None else self.state.value
        return {"model": model, **said}

    async def _load_and_warm(self) -> None:
        start = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            network = await loop.run_in_executor(self._cpu, self._load)
            self._batcher = Batcher(network, cpu=self._cpu, limits=self._options.batches, meter=self._meter)
            await self._batcher.segment(_grey_png(), ["object"], name="the warm-up")
            self._network = network
        except S3segError as err:
            self._failure = str(err)
            _log.error("the model cannot be loaded", extra={"why": self._failure})
        except Exception as err:
            self._failure = f"{type(err).__name__} while loading the model"
            _log.exception("the model cannot be loaded")
        else:
            _log.info("the model is ready", extra={"seconds": round(time.perf_counter() - start, 2)})


def _grey_png() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(buffer, format="PNG")
    return buffer.getvalue()

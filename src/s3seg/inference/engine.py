"""`Engine`: loads the network in the background, and runs the worker that processes tasks with it."""

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

from s3seg.decoding import DecodingPool
from s3seg.errors import CheckpointError, S3segError
from s3seg.inference.batcher import Batcher
from s3seg.inference.metrics import InferenceMetrics, NoMetrics
from s3seg.inference.network import Network
from s3seg.inference.network_queue import Limits
from s3seg.inference.pipeline import Pipeline
from s3seg.inference.worker import Worker, WorkerLimits
from s3seg.tasks.health import health_check
from s3seg.tasks.ports import ObjectStore, TaskQueue

_log = logging.getLogger(__name__)
_CHECK_INTERVAL_S = 2.0


class ModelState(StrEnum):
    """Whether the network can be used."""

    LOADING = "loading"
    READY = "ok"
    FAILED = "failed"


def _cpu_threads() -> int:
    return max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options of an `Engine`.

    Attributes:
        worker: How many tasks the worker takes, and for how long it leases them.
        batches: The size of batches, and of the cache of embeddings.
        cpu_threads: Threads for making results, and for reading pictures if there are no decoding processes.
        network_threads: Batches of a network that are in progress at the same time; 2 for networks in processes.
        retry_after_s: Seconds before a failed attempt is tried again; doubles with each attempt.
    """

    worker: WorkerLimits = field(default_factory=WorkerLimits)
    batches: Limits = field(default_factory=Limits)
    cpu_threads: int = field(default_factory=_cpu_threads)
    network_threads: int = 1
    retry_after_s: float = 2.0


class Engine:
    """The inference side of a service: network, batcher, pipeline and worker.

    Create and use it on one event loop.

    Args:
        queue: The queue of tasks.
        objects: The store of pictures and artifacts.
        load: Loads the network, or several with the same checkpoint on different devices; called on a thread.
        decoding: Processes that read pictures, with `s3seg.inference.decoding.read_resized`; closed with the engine.
            Without them pictures are read in threads, which cannot be stopped: only for users who are trusted.
        options: Sizes and times.
        metrics: Receives measurements.
        wait_for_work: Waits for a sign of new tasks, at most the given number of seconds; see `Worker`.
    """

    def __init__(
        self,
        *,
        queue: TaskQueue,
        objects: ObjectStore,
        load: Callable[[], Network | Sequence[Network]],
        decoding: DecodingPool | None = None,
        options: EngineOptions | None = None,
        metrics: InferenceMetrics | None = None,
        wait_for_work: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        options = options or EngineOptions()
        self.queue = queue
        self._objects = objects
        self._load = load
        self._decoding = decoding
        self._options = options
        self._metrics = metrics or NoMetrics()
        self._cpu = ThreadPoolExecutor(options.cpu_threads, thread_name_prefix="s3seg-cpu")
        self._batcher: Batcher | None = None
        self._failure: str | None = None
        self._loading: asyncio.Task[None] | None = None
        self._checked: tuple[float, dict[str, str]] = (-_CHECK_INTERVAL_S, {})
        pipeline = Pipeline(
            queue,
            objects,
            lambda: self.batcher,
            cpu=self._cpu,
            lease_s=options.worker.lease_s,
            retry_after_s=options.retry_after_s,
            metrics=self._metrics,
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
        """Whether the network can be used.

        Ready means that it is loaded and, on an accelerator, has segmented a first picture.
        Of several networks, all have to be loaded at first; later one is enough, while the process of another is
        restarted.
        """
        if self._failure is not None:
            return ModelState.FAILED
        if self._loading is None or not self._loading.done():
            return ModelState.LOADING
        return ModelState.READY if any(one.problem is None for one in self.networks) else ModelState.LOADING

    @property
    def failure(self) -> str | None:
        """Why the network could not be loaded, if so."""
        return self._failure

    @property
    def batcher(self) -> Batcher:
        """The batcher around the network.

        Raises:
            CheckpointError: The network is still being loaded, or could not be loaded.
        """
        if self._batcher is None or self.state is not ModelState.READY:
            raise CheckpointError(f"the model is not loaded ({self.state})")
        return self._batcher

    @property
    def network(self) -> Network:
        """The network.

        Raises:
            CheckpointError: It is still being loaded, or could not be loaded.
        """
        return self.batcher.network

    @property
    def networks(self) -> Sequence[Network]:
        """All networks, one for each device; none while they are being loaded."""
        return () if self._batcher is None else self._batcher.networks

    @property
    def cache_bytes(self) -> int:
        """Device memory that the embeddings of earlier pictures take."""
        return 0 if self._batcher is None else self._batcher.cache_bytes

    # ---- start and stop ----

    def start(self) -> None:
        """Start loading the network; once it is ready, the worker starts to claim tasks."""
        if self._decoding is not None:
            self._decoding.start()
        self._loading = asyncio.ensure_future(self._load_and_warm())
        self.worker.start()

    async def loaded(self) -> None:
        """Wait until the network is ready.

        Raises:
            CheckpointError: The network could not be loaded.
        """
        if self._loading is not None:
            await asyncio.shield(self._loading)
        if self._failure is not None:
            raise CheckpointError(self._failure)

    async def aclose(self, *, grace_s: float = 0.0) -> None:
        """Stop the worker (see `Worker.aclose`), then end the threads.

        Args:
            grace_s: Seconds that running tasks get to finish.
        """
        await self.worker.aclose(grace_s=grace_s)
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._batcher is not None:
            await self._batcher.aclose()
        if self._decoding is not None:
            await self._decoding.aclose()
        self._cpu.shutdown(wait=False, cancel_futures=True)

    async def check(self) -> Mapping[str, str]:
        """Return the health of each part: ``ok``, or what is wrong.

        The object store and the queue are checked at most every two seconds; in between, the last answer is returned.
        """
        checked_at, health = self._checked
        if time.monotonic() - checked_at >= _CHECK_INTERVAL_S:
            objects, tasks = await asyncio.gather(health_check(self._objects), health_check(self.queue))
            health = {"objects": objects or "ok", "tasks": tasks or "ok"}
            self._checked = (time.monotonic(), health)
        model = "it cannot be loaded; the log says why" if self._failure is not None else self.state.value
        problems = [one.problem for one in self.networks if one.problem is not None]
        model = "; ".join(problems) or model
        return {"model": model, **health}

    async def _load_and_warm(self) -> None:
        start = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            network = await loop.run_in_executor(self._cpu, self._load)
            self._batcher = Batcher(
                network,
                threads=self._options.network_threads,
                cpu=self._cpu,
                decoding=self._decoding,
                limits=self._options.batches,
                metrics=self._metrics,
            )
            await self._batcher.warm(_grey_png())
        except S3segError as err:
            self._failure = str(err)
            _log.error("loading the model failed; fix the cause and restart", extra={"why": self._failure})
        except Exception as err:
            self._failure = f"{type(err).__name__} while loading the model"
            _log.exception("loading the model failed; fix the cause and restart")
        else:
            _log.info("the model is ready", extra={"seconds": round(time.perf_counter() - start, 2)})


def _grey_png() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(buffer, format="PNG")
    return buffer.getvalue()

"""The gpu service with the routes of tools, in this process, and as a process of its own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from s3seg.checkpoints import resolve
from s3seg.inference.stages import Sam3Network
from s3seg.integrations.door import Door
from s3seg.integrations.routes import ToolOptions, operations
from s3seg.web.gpu_app import build_gpu_app
from s3seg.web.keys import ApiKeys
from s3seg.web.metrics import HttpMetrics
from tests.helpers.inference_system import InferenceSystem
from tests.helpers.processes import Process, free_port, wait_for

KEY = "the key of the tests"
CLI = "from s3seg.cli import main; main()"


@contextlib.asynccontextmanager
async def serving(
    *tools: str, key: str | None = KEY, network: Any = None, options: ToolOptions | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the routes of tools, with the embedded checkpoint unless a network is given; the client sends no key."""
    system = InferenceSystem()
    engine = system.engine(load=lambda: network or embedded_network())
    keys = [key] if key else []
    more = operations(tools, Door(engine, ApiKeys(keys)), options)
    app = build_gpu_app(engine, keys=keys, metrics=HttpMetrics(), more_operations=more)
    engine.start()
    await engine.loaded()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gpu") as client:
        client.engine = engine  # type: ignore[attr-defined]
        yield client
    await engine.aclose()
    system.cpu.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def service(folder: Path, *tools: str, checkpoint: str = "embedded", **environment: str) -> Iterator[str]:
    """Run ``s3seg serve gpu`` in a process; yields its URL once it is ready."""
    port = free_port()
    command = ["serve", "gpu", "--port", str(port), "--checkpoint", checkpoint, "--with", ",".join(tools)]
    environment = {"S3SEG_DATA_DIR": str(folder), "API_SECRET_KEY": KEY, "S3SEG_DECODE_PROCESSES": "2", **environment}
    process = Process(CLI, *command, log=folder / "service.log", **environment)
    process.start()
    try:
        wait_for(f"http://127.0.0.1:{port}", "/ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


@functools.cache
def embedded_network() -> Sam3Network:
    """The embedded checkpoint, as the services load it."""
    return Sam3Network(resolve("embedded"))


def same_mask(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two masks differ in at most a few pixels, as those of two runs may, which round sums differently."""
    return one.shape == other.shape and bool((one ^ other).sum() <= 3 + 1e-4 * other.sum())

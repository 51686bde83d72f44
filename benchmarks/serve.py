"""The gpu service beside LitServe: same network, same image decoder, same results, in one run.

``python -m benchmarks serve`` (``make bench-serve``); ``S3SEG_BENCH_SCALE=0.5`` halves the number of requests.
Clients, servers and whatever else runs share this machine, so compare columns, not machines; the servers take turns,
and of three rounds the middle one is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.http_load import Connections, free_port, request_bytes
from s3seg.app import Parts
from s3seg.app.settings import Settings
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity, NewImage

PICTURES = Path(__file__).parent.parent / "examples" / "pictures"
KEY = "a-key-for-benchmarks"
USER = Identity(user_id="00000000-0000-4000-8000-000000000001", tier=Tier.ENTERPRISE)
PROMPTS = ("car", "tree", "house", "star", "cup", "dog")
REQUESTS = {1: 12, 4: 36, 16: 72, 64: 144}
ROUNDS = 3
SCALE = float(os.environ.get("S3SEG_BENCH_SCALE", "1"))
HELD_PER_S = 1 / 0.030

Send = Callable[[Any], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run of requests gave.

    Attributes:
        seconds: From the first request to the last answer.
        latencies: Milliseconds of each answer, by status.
        goodput: Of an open loop, successes a second in the second half of its time.
    """

    seconds: float
    latencies: dict[int, list[float]]
    goodput: float = 0.0

    @property
    def per_second(self) -> float:
        """Successes a second."""
        return len(self.latencies.get(200, ())) / self.seconds

    def percentile(self, percent: int, status: int = 200) -> float:
        """Milliseconds."""
        return float(np.percentile(self.latencies.get(status) or [np.nan], percent))


class Ours:
    """Our service, and tasks for it: accepted beforehand, as the edge does."""

    name = "s3seg"

    def __init__(self, folder: Path, network: str) -> None:
        self._settings = Settings(
            _env_file=None,  # pyright: ignore[reportCallIssue]
            data_dir=folder / "data",
            rate_limits="off",
            welcome_credits=1_000_000,
            checkpoint="embedded",
        )
        self._network, self._port = network, free_port()
        self._parts = Parts(self._settings)

    def start(self) -> Server:
        """Start it and wait until it is ready."""
        environment = {
            "S3SEG_DATA_DIR": str(self._settings.data_dir),
            "S3SEG_CHECKPOINT": "embedded",
            "API_SECRET_KEY": KEY,
        }
        server = Server("benchmarks.serve_ours", self._network, str(self._port), **environment)
        server.wait_until_ok(f"http://127.0.0.1:{self._port}/ready")
        return server

    async def prepare(self, asked: Sequence[tuple[bytes, str]]) -> list[dict[str, str]]:
        """Requests for pictures and prompts, as `sender` sends them."""
        urls: dict[bytes, str] = {}
        bodies = []
        for content, prompt in asked:
            if content not in urls:
                key = new_image_key(USER.user_id, "image/jpeg")
                await self._parts.objects.put(key, content)
                image = NewImage(object_key=key, content_type="image/jpeg", size_bytes=len(content), width=1, height=1)
                urls[content] = (await self._parts.task_store.register_image(USER, image)).image_url
            request = TaskRequest(image_url=urls[content], prompts=(prompt,))
            task = (await self._parts.task_store.submit(USER, request)).task
            bodies.append(
                {
                    "image_url": urls[content],
                    "text_prompt": prompt,
                    "user_id": USER.user_id,
                    "task_id": task.task_id,
                }
            )
        return bodies

    @contextlib.contextmanager
    def sender(self) -> Iterator[Send]:
        """What sends a request and gives the status of its answer."""
        with _posting(self._port, "/api/v1/predict", {"X-API-Key": KEY}) as send:
            yield send

    async def aclose(self) -> None:
        """Close the stores."""
        await self._parts.aclose()


class LitServe:
    """LitServe, and pictures on the disk for it."""

    name = "LitServe"

    def __init__(self, folder: Path, network: str) -> None:
        self._folder = folder / "litserve"
        self._folder.mkdir(exist_ok=True)
        self._network, self._port = network, free_port()

    def start(self) -> Server:
        """Start it and wait until it is ready."""
        server = Server("benchmarks.serve_litserve", self._network, str(self._port), str(self._folder))
        server.wait_until_ok(f"http://127.0.0.1:{self._port}/health")
        return server

    async def prepare(self, asked: Sequence[tuple[bytes, str]]) -> list[dict[str, str]]:
        """Requests for pictures and prompts, as `sender` sends them."""
        bodies = []
        for content, prompt in asked:
            path = self._folder / f"{secrets.token_hex(16)}.jpg"
            path.write_bytes(content)
            bodies.append({"path": str(path), "prompt": prompt})
        return bodies

    @contextlib.contextmanager
    def sender(self) -> Iterator[Send]:
        """What sends a request and gives the status of its answer."""
        with _posting(self._port, "/predict", {}) as send:
            yield send

    async def aclose(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Run all four cases and print their tables."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_main(Path(folder)))


async def _main(folder: Path) -> None:
    kinds: list[Any] = [Ours, *([LitServe] if find_spec("litserve") else [])]
    if len(kinds) == 1:
        print("LitServe is not installed (pip install litserve): only s3seg is measured")
    real = [_jpeg("street", 800), _jpeg("park", 800), _jpeg("kitchen_table", 800), _jpeg("shapes", 800)]
    large = [_jpeg("street", 1632), _jpeg("park", 1632)]
    await _compare("(a) unique pictures, one prompt each", kinds, folder, real, prompts_each=1)
    await _compare("(b) each picture asked for three prompts", kinds, folder, real, prompts_each=3)
    capacity, overload = 0.0, Measured(0, {})
    table = _table("(c) an accelerator held for 30 ms a picture, 2-megapixel JPEGs, 64 clients")
    for kind, network in [(Ours, "held"), (Ours, "held-process"), *((kind, "held") for kind in kinds[1:])]:
        side = kind(folder, network)
        server = side.start()
        try:
            measured = await _closed_loop(side, _unique(large, 1, 192 + round(320 * SCALE)), 64, sustained=True)
            name = f"{side.name}, network in a process" if network == "held-process" else side.name
            _row(table, name, "64", measured, f"{measured.per_second / HELD_PER_S:.0%} of {HELD_PER_S:.1f}/s")
            if network == "held-process":
                capacity = measured.per_second
                overload = await _open_loop(side, _unique(large, 1, round(800 * SCALE)), 2 * capacity)
        finally:
            server.end()
        await side.aclose()
    Console(width=120).print(table)
    refused = overload.latencies.get(503, [])
    print(f"(d) s3seg, {2 * capacity:.0f} requests/s offered for {overload.seconds:.0f} s:")
    print(f"    answered {overload.goodput:.1f}/s (capacity {capacity:.1f}/s), refused {len(refused)}")
    if refused:
        print(f"    503 after {overload.percentile(50, 503):.1f} ms (p50), {overload.percentile(99, 503):.1f} ms (p99)")


async def _compare(title: str, kinds: Sequence[Any], folder: Path, pictures: list[bytes], *, prompts_each: int) -> None:
    table = _table(title)
    sides = [kind(folder, "real") for kind in kinds]
    servers = [side.start() for side in sides]
    try:
        for side, server in zip(sides, servers, strict=True):
            await _closed_loop(side, _unique(pictures, prompts_each, 12), 4)  # to warm up
            server.pause()
        for concurrency, requests in REQUESTS.items():
            count = max(1, round(requests * SCALE / prompts_each)) * prompts_each  # whole pictures only
            rounds: list[list[Measured]] = [[] for _ in sides]
            for _ in range(ROUNDS):  # in turns: whatever else runs on this machine comes and goes
                for side, server, measured in zip(sides, servers, rounds, strict=True):
                    server.go_on()
                    measured.append(await _closed_loop(side, _unique(pictures, prompts_each, count), concurrency))
                    server.pause()
            middle = [sorted(measured, key=lambda one: one.per_second)[ROUNDS // 2] for measured in rounds]
            for side, measured in zip(sides, middle, strict=True):
                ratio = "" if measured is middle[0] else f"s3seg {middle[0].per_second / measured.per_second:.2f}x"
                _row(table, side.name, str(concurrency), measured, ratio)
    finally:
        for server in servers:
            server.end()
    for side in sides:
        await side.aclose()
    Console(width=120).print(table)


async def _closed_loop(
    side: Any, asked: Sequence[tuple[bytes, str]], concurrency: int, *, sustained: bool = False
) -> Measured:
    """So many clients, each asking again as soon as it has its answer.

    ``sustained`` counts only answers between the second that each client had, on average, and the last request sent:
    neither the filling nor the emptying of the pipeline.
    """
    bodies = iter(await side.prepare(asked))
    latencies: dict[int, list[float]] = {}
    sent: list[float] = []
    answered: list[tuple[float, int, float]] = []

    async def ask(send: Send) -> None:
        for body in bodies:
            sent.append(time.perf_counter())
            status = await _timed(send, body, latencies)
            answered.append((time.perf_counter(), status, latencies[status][-1]))

    with side.sender() as send:
        start = time.perf_counter()
        await asyncio.gather(*(ask(send) for _ in range(concurrency)))
        end = time.perf_counter()
    if sustained:
        start, end = answered[2 * concurrency][0], sent[-1]
        latencies = {}
        for moment, status, milliseconds in answered:
            if start < moment <= end:
                latencies.setdefault(status, []).append(milliseconds)
    return Measured(end - start, latencies)


async def _open_loop(side: Any, asked: Sequence[tuple[bytes, str]], per_second: float) -> Measured:
    """Requests at a fixed rate, whatever becomes of them."""
    bodies = await side.prepare(asked)
    latencies: dict[int, list[float]] = {}
    answered: list[float] = []

    async def ask(body: Any) -> None:
        if await _timed(send, body, latencies) == 200:
            answered.append(time.perf_counter())

    with side.sender() as send:
        start = time.perf_counter()
        tasks = []
        for number, body in enumerate(bodies):
            await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
            tasks.append(asyncio.ensure_future(ask(body)))
        offered = time.perf_counter() - start
        await asyncio.gather(*tasks)
    late = [moment for moment in answered if offered / 2 <= moment - start <= offered]
    return Measured(offered, latencies, len(late) / (offered / 2))


async def _timed(send: Send, body: Any, latencies: dict[int, list[float]]) -> int:
    start = time.perf_counter()
    status = await send(body)
    latencies.setdefault(status, []).append((time.perf_counter() - start) * 1000)
    return status


def _unique(pictures: list[bytes], prompts_each: int, count: int) -> list[tuple[bytes, str]]:
    """Pictures nobody has seen before, and what to look for. Bytes after its end do not change a JPEG."""
    asked: list[tuple[bytes, str]] = []
    for picture in itertools.cycle(pictures):
        if len(asked) >= count:
            return asked
        content = picture + secrets.token_bytes(16)
        start = secrets.randbelow(len(PROMPTS))
        asked += [(content, PROMPTS[(start + k) % len(PROMPTS)]) for k in range(prompts_each)]
    return asked


def _jpeg(name: str, width: int) -> bytes:
    picture = Image.open(PICTURES / f"{name}.png").convert("RGB")
    height = round(width * picture.height / picture.width)
    buffer = BytesIO()
    picture.resize((width, height), Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("server", "clients", "answers/s", "p50 ms", "p99 ms", "errors", ""):
        table.add_column(column, justify="left" if column in ("server", "") else "right")
    return table


def _row(table: Table, name: str, clients: str, measured: Measured, remark: str) -> None:
    errors = sum(len(times) for status, times in measured.latencies.items() if status != 200)
    figures = [f"{measured.per_second:.1f}", f"{measured.percentile(50):.0f}", f"{measured.percentile(99):.0f}"]
    table.add_row(name, clients, *figures, str(errors), remark)


@contextlib.contextmanager
def _posting(port: int, path: str, headers: dict[str, str]) -> Iterator[Send]:
    connections = Connections(port)

    async def send(body: Any) -> int:
        content = json.dumps(body).encode()
        return await connections.send(
            request_bytes("POST", path, headers | {"Content-Type": "application/json"}, content)
        )

    try:
        yield send
    finally:
        connections.close()


class Server:
    """A server's processes; paused while another is measured."""

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            # one torch thread each: several threads of both servers and the clients would fight for the cores
            env={"OMP_NUM_THREADS": "1"} | os.environ | environment,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,  # its workers too hear our signals
        )

    def wait_until_ok(self, url: str) -> None:
        """Until it answers 200 at a URL."""
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up and self._process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url).status_code == 200:
                    return
            time.sleep(0.1)
        self._said.seek(0)
        raise RuntimeError(f"{url} did not become ready: {self._said.read().decode(errors='replace')[-2000:]}")

    def pause(self) -> None:
        """Take no time from others."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """End all of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()

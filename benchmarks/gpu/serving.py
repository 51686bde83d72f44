"""Part ``serving``: the gpu service under the load of 64 clients, beside what the network does alone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.context import Context
from benchmarks.gpu.network import RandomNetwork
from benchmarks.gpu.pictures import PROMPTS, make_jpeg, unique
from benchmarks.gpu.report import Step
from benchmarks.gpu.timing import measure
from benchmarks.serve import KEY, Ours, Server

PROMPTS_EACH = 3
_ALONE_BATCH = 8
_PREPARE_S = 25  # at most, to store the pictures and tasks of a load


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked.

    Attributes:
        clients: Each asks again as soon as it has its answer.
        seconds: For how long answers count.
        settle_s: For how long they do not count before that.
    """

    clients: int
    seconds: float
    settle_s: float


LOADS = (Load(16, 20, 3), Load(64, 20, 3))
QUICK_LOADS = (Load(4, 1, 0.1),)


@dataclass(slots=True)
class _Answers:
    """Moments and milliseconds of the answers, by status."""

    moments: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def within(self, start: float, end: float) -> list[float]:
        """Milliseconds of the successes between two moments."""
        return [taken for moment, taken in self.moments.get(200, []) if start < moment <= end]

    @property
    def errors(self) -> int:
        """How many had another status than 200."""
        return sum(len(answers) for status, answers in self.moments.items() if status != 200)


def run(context: Context) -> None:
    """Measure the network alone, then the service around it."""
    state: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        steps = [
            Step("network alone", partial(_alone, context, state), 25),
            Step("service", partial(_service, context, state, Path(folder)), 60),
        ]
        context.report.run(steps, context.deadline)
    rows = context.report.tables.get("Serving", [])
    bars = {f"{row['clients']} clients": row["images_per_s"] for row in rows}
    context.report.plot(
        "Images a second, three prompts each", {"network alone": state.get("per_s", 0.0), **bars}, unit="/s"
    )


def _alone(context: Context, state: dict[str, float]) -> None:
    """Measure the rate that the service could have at most: full batches, nothing else."""
    device, quick = context.device, context.quick
    dtype = torch.float32 if quick else torch.bfloat16
    network = RandomNetwork(device=device, dtype=dtype, quick=quick)
    picture = network.read(make_jpeg(quick=quick), name="picture")
    words = PROMPTS[:PROMPTS_EACH]

    def batch() -> None:
        encoded = network.encode([picture] * _ALONE_BATCH)
        network.predict([(image, prompt) for image in encoded for prompt in words])

    with torch.inference_mode():
        measured = measure(batch, device, runs=3 if quick else 20, deadline=context.deadline)
    state["per_s"] = _ALONE_BATCH / measured.host_ms * 1000
    context.report.add(
        "Network alone",
        images=_ALONE_BATCH,
        prompts_each=PROMPTS_EACH,
        ms=measured.milliseconds,
        images_per_s=state["per_s"],
        peak_mb=measured.peak_mb,
    )


def _service(context: Context, state: dict[str, float], folder: Path) -> None:
    gc.collect()
    if context.device.type == "cuda":
        torch.cuda.empty_cache()  # what measuring alone has left
    side = _Side(folder, quick=context.quick)
    server = side.start()
    try:
        asyncio.run(_measure(context, state, side, folder / "busy.json"))
    finally:
        server.end()


async def _measure(context: Context, state: dict[str, float], side: _Side, busy: Path) -> None:
    try:
        await _ask(
            side, await _requests(side, 8, quick=context.quick), clients=8, until=time.perf_counter() + 30
        )  # to warm up
        for load in QUICK_LOADS if context.quick else LOADS:
            if not context.deadline.allows(load.settle_s + load.seconds + _PREPARE_S):
                context.report.leave_out(f"{load.clients} clients", f"{context.deadline.left:.0f} s were left")
                continue
            seconds = load.settle_s + load.seconds
            count = 12 if context.quick else min(1500, round(1.2 * seconds * state.get("per_s", 60.0)) + load.clients)
            bodies = await _requests(side, count, quick=context.quick)
            with _sampled(busy, cuda=not context.quick) as samples:
                begin = time.perf_counter()
                answers, last = await _ask(side, bodies, clients=load.clients, until=begin + seconds)
            start, end = begin + load.settle_s, last
            _add(
                context,
                state,
                load,
                answers.within(start, end),
                end - start,
                answers.errors,
                samples.between(start, end),
            )
    finally:
        await side.aclose()


def _add(
    context: Context,
    state: dict[str, float],
    load: Load,
    milliseconds: list[float],
    seconds: float,
    errors: int,
    use: dict[str, float | None],
) -> None:
    p50, p99 = np.percentile(milliseconds, [50, 99]) if milliseconds else (None, None)
    per_s = len(milliseconds) / PROMPTS_EACH / seconds
    alone = state.get("per_s")
    context.report.add(
        "Serving",
        clients=load.clients,
        images_per_s=per_s,
        of_the_network_alone=per_s / alone if alone else None,
        p50_ms=None if p50 is None else float(p50),
        p99_ms=None if p99 is None else float(p99),
        answers=len(milliseconds),
        errors=errors,
        seconds=seconds,
        **use,
        ok=bool(milliseconds) and not errors,
    )


class _Side(Ours):
    """The service with the network of `benchmarks.gpu.service`, and tasks for it."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        super().__init__(folder, "random")
        self._busy, self._quick = folder / "busy.json", quick

    def start(self) -> Server:
        """Start it and wait until it is ready."""
        arguments = [str(self._port), str(self._busy), *(["--quick"] if self._quick else [])]
        environment = {"S3SEG_DATA_DIR": str(self._settings.data_dir), "API_SECRET_KEY": KEY}
        server = Server("benchmarks.gpu.service", *arguments, **environment)
        try:
            server.wait_until_ok(f"http://127.0.0.1:{self._port}/ready")
        except BaseException:  # such as the end of this part's time
            server.end()
            raise
        return server


async def _requests(side: Ours, pictures: int, *, quick: bool) -> Iterator[dict[str, str]]:
    """Requests for pictures that nobody has asked for before, three prompts each."""
    originals = [make_jpeg(name, quick=quick) for name in ("street", "park")]
    asked = []
    for number, original in zip(range(pictures), itertools.cycle(originals), strict=False):
        content = unique(original)
        asked += [(content, PROMPTS[(number + k) % len(PROMPTS)]) for k in range(PROMPTS_EACH)]
    return iter(await side.prepare(asked))


async def _ask(side: Ours, bodies: Iterator[dict[str, str]], *, clients: int, until: float) -> tuple[_Answers, float]:
    """Ask until a moment, or until there are no more requests; also return when the last request was sent."""
    answers = _Answers()
    sent = [time.perf_counter()]

    async def client(send: Any) -> None:
        for body in bodies:
            start = time.perf_counter()
            if start > until:
                return
            sent.append(start)
            status = await send(body)
            end = time.perf_counter()
            answers.moments.setdefault(status, []).append((end, (end - start) * 1000))

    with side.sender() as send:
        await asyncio.gather(*(client(send) for _ in range(clients)))
    return answers, max(sent)


class _Samples:
    """How much the device was used, read four times a second."""

    def __init__(self, busy: Path, *, cuda: bool) -> None:
        self._busy, self._cuda = busy, cuda
        self._read: list[tuple[float, dict[str, float], float | None]] = []

    def take(self) -> None:
        """Read the service's own count and, where it can be had, the driver's."""
        done: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            done = json.loads(self._busy.read_text())
        used: float | None = None
        if self._cuda:
            with contextlib.suppress(Exception):  # pynvml is not everywhere
                used = float(torch.cuda.utilization())
        self._read.append((time.perf_counter(), done, used))

    def between(self, start: float, end: float) -> dict[str, float | None]:
        """Return the shares of the time between two moments, and the sizes of batches in it."""
        inside = [(moment, done, used) for moment, done, used in self._read if start <= moment <= end and done]
        driver = [used for _, _, used in inside if used is not None]
        use: dict[str, float | None] = {"driver_busy": statistics.mean(driver) / 100 if driver else None}
        if len(inside) < 2:
            return use
        (first, before, _), (last, after, _) = inside[0], inside[-1]
        delta = {name: after[name] - before[name] for name in after}
        use["network_busy"] = delta["seconds"] / (last - first)
        use["images_a_pass"] = delta["images"] / delta["image_passes"] if delta["image_passes"] else None
        use["prompts_a_pass"] = delta["prompts"] / delta["prompt_passes"] if delta["prompt_passes"] else None
        return use


@contextlib.contextmanager
def _sampled(busy: Path, *, cuda: bool) -> Iterator[_Samples]:
    """Take samples on another thread until the end of the block."""
    samples, ended = _Samples(busy, cuda=cuda), threading.Event()

    def take() -> None:
        while not ended.wait(0.25):
            samples.take()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()

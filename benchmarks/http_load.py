"""Load for a server on this machine, and the two servers that are compared: the edge, and a bare Starlette."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

BARE = """
import sys, secrets
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from s3seg.web.server import run_server

ANSWER = {"success": True, "data": {"task_id": "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11", "status": "pending",
    "created_at": "2026-01-01T00:00:00.000000Z", "updated_at": "2026-01-01T00:00:00.000000Z"}, "error": None,
    "meta": {"request_id": "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11", "timestamp": "2026-01-01T00:00:00.000000Z"}}

async def constant(request):
    return JSONResponse(ANSWER)

async def keep(request):
    async with request.form() as form:
        Path(sys.argv[2], secrets.token_hex(16)).write_bytes(await form["file"].read())
    return JSONResponse(ANSWER)

app = Starlette(routes=[Route("/constant", constant), Route("/upload", keep, methods=["POST"])])
run_server(app, host="127.0.0.1", port=int(sys.argv[1]))
"""
EDGE = "from s3seg.commands.serve import app; app()"


@dataclass(frozen=True, slots=True)
class Served:
    """What a load brought.

    Attributes:
        per_second: Answers a second.
        p50_ms, p99_ms: Of the time of an answer.
    """

    per_second: float
    p50_ms: float
    p99_ms: float


def load(port: int, request: bytes, *, status: int, connections: int = 16, seconds: float = 3.0) -> Served:
    """Send one request over and over on some connections, each of which waits for its answer.

    Raises:
        RuntimeError: An answer had another status.
    """
    return asyncio.run(_load(port, request, status, connections, seconds))


async def _load(port: int, request: bytes, status: int, connections: int, seconds: float) -> Served:
    times: list[float] = []
    begin = time.perf_counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start := time.perf_counter()) - begin < seconds:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            if int(head[9:12]) != status:
                raise RuntimeError(f"expected {status}, got {head[:40]!r} {body[:200]!r}")
            times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    times.sort()
    took = time.perf_counter() - begin
    return Served(len(times) / took, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000)


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """An HTTP/1.1 request, whole."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.contextmanager
def serving(code: str, *arguments: str, path: str, environment: Mapping[str, str], port: int) -> Iterator[float]:
    """Run a server's process; gives the seconds until it first answered ``path``."""
    command = [sys.executable, "-c", code, *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}{path}")
                break
            time.sleep(0.01)
        yield time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def resident_mb(port: int) -> float | None:
    """Memory of the process that listens on a port, MB; None where /proc is not there."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            command = status.with_name("cmdline").read_text()
            if str(port) in command.split("\0"):
                line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
                return int(line.split()[1]) / 1024
    return None

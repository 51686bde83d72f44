"""Load for a server on this machine, and the two servers that are compared: the edge, and a bare Starlette."""

from __future__ import annotations

import asyncio
import contextlib
import math
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
class Server:
    """A server's process.

    Attributes:
        port: That it listens on.
        pid: Of the process.
        start_s: Seconds until it first answered.
    """

    port: int
    pid: int
    start_s: float

    @property
    def resident_mb(self) -> float:
        """Memory, MB; NaN where /proc is not there."""
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
        return math.nan

    @property
    def cpu_s(self) -> float:
        """Processor time that it has used, seconds; NaN where /proc is not there."""
        with contextlib.suppress(OSError):
            numbers = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
        return math.nan


@dataclass(frozen=True, slots=True)
class Served:
    """What a load brought.

    Attributes:
        per_second: Answers a second.
        p50_ms, p99_ms: Of the time of an answer.
        cpu_us: The server's processor time for an answer: what it takes where nothing else runs.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def load(server: Server, request: bytes, *, status: int, connections: int = 16, seconds: float = 3.0) -> Served:
    """Send one request over and over on some connections, each of which waits for its answer.

    Raises:
        RuntimeError: An answer had another status.
    """
    return asyncio.run(_load(server, request, status, connections, seconds))


async def _load(server: Server, request: bytes, status: int, connections: int, seconds: float) -> Served:
    cpu = server.cpu_s
    times: list[float] = []
    begin = time.perf_counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
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
    return Served(
        per_second=len(times) / took,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[int(len(times) * 0.99)] * 1000,
        cpu_us=(server.cpu_s - cpu) / len(times) * 1e6,
    )


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """An HTTP/1.1 request, whole."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body of an answer, after its head, which is in lower case."""
    if b"transfer-encoding: chunked" not in head:
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await reader.readexactly(int(length or 0))
    parts: list[bytes] = []
    while size := int((await reader.readline()).strip() or b"0", 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(parts)


class Connections:
    """Kept-open connections to a server on this machine, as many as are in use at a time.

    Takes a tenth of the processor time of an HTTP client for everyday use, which would be taken from the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes) -> int:
        """Send an HTTP/1.1 request, read the whole answer, give its status."""
        connection = None
        while self._idle and connection is None:
            reader, writer = connection = self._idle.pop()
            if reader.at_eof():  # the server has closed it, unused for long
                writer.close()
                connection = None
        reader, writer = connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await read_body(reader, head)
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append(connection)
        return int(head[9:12])

    def close(self) -> None:
        """Close those that are not in use."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


@contextlib.contextmanager
def serving(code: str, *arguments: str, path: str, environment: Mapping[str, str], port: int) -> Iterator[Server]:
    """Run a server's process until the end of the block; it has answered ``path`` once."""
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
        yield Server(port, process.pid, time.perf_counter() - start)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

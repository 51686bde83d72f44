"""A server with small limits as a process of its own, and raw requests to it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

SERVE = """
import asyncio, json, sys
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, StreamingResponse
from s3seg.errors import UnavailableError
from s3seg.web.app import build_app
from s3seg.web.connection_limits import ConnectionLimits
from s3seg.web.logs import configure_logging
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Operation
from s3seg.web.server import run_server

if sys.argv[2] == "edge":
    from s3seg.web.edge_app import render_error
else:
    from s3seg.web.gpu_app import _render_error as render_error

served = []
made = []  # bytes of the large answer

async def count(request):
    served.append(request.headers.get("n", ""))
    return JSONResponse({"served": served})

async def echo(request):
    body = await request.body()
    served.append("echo")
    return JSONResponse({"length": len(body), "fields": [name for name, _ in request.headers.items()]})

async def slow(request):
    await asyncio.sleep(float(request.query_params["s"]))
    served.append("slow")
    return JSONResponse({"served": served})

async def large(request):
    async def chunks():
        for _ in range(1024):
            made.append(65536)
            yield bytes(65536)
    return StreamingResponse(chunks(), headers={"Content-Length": str(64 * 2**20)})

async def tell_made(request):
    return JSONResponse({"made": sum(made)})

async def events(request):
    async def ticks():
        while True:
            yield b": tick\\n\\n"
            await asyncio.sleep(0.05)
    return StreamingResponse(ticks(), media_type="text/event-stream")

async def busy(request):
    raise UnavailableError("busy")

async def crash(request):
    raise ZeroDivisionError

def route(method, path, handler):
    return Operation(method=method, path=path, handler=handler, summary="", responses={})

app = build_app(
    [route("GET", "/count", count), route("POST", "/echo", echo), route("GET", "/slow", slow),
     route("GET", "/large", large), route("GET", "/events", events), route("GET", "/busy", busy),
     route("GET", "/crash", crash), route("GET", "/made", tell_made)],
    render_error=render_error, metrics=HttpMetrics(),
)
configure_logging()
run_server(app, host="127.0.0.1", port=0, limits=ConnectionLimits(**json.loads(sys.argv[1])))
"""


GET = b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Server:
    """A server's process.

    Attributes:
        port: That it listens on.
        pid: Of the process.
    """

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[dict] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, request: bytes, *, half_close: bool = False) -> bytes:
        """Send everything, then read until the server closes the connection, or has answered once."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection) if half_close else read_answer(connection)

    def log_line(self, **expected: object) -> dict:
        """Read the log until there is a line with these fields."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.lines.append(json.loads(text))
            if expected.items() <= self.lines[-1].items():
                return self.lines[-1]
        raise AssertionError(f"no line with {expected} in {self.lines}")

    def resident_mb(self) -> float:
        with open(f"/proc/{self.process.pid}/status") as status:  # noqa: PTH123
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


@contextlib.contextmanager
def serving(*, preexec: str = "", service: str = "edge", **limits: float) -> Iterator[Server]:
    with subprocess.Popen(
        [sys.executable, "-c", preexec + SERVE, json.dumps(limits), service],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            server = Server(process)
            server.port = server.log_line(message="listening")["port"]
            assert status_of(server.ask(GET)) == 200
            yield server
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def impatient_server() -> Iterator[Server]:
    """A server that does not wait for clients which go on sending."""
    with serving(linger_s=0.1) as running:
        yield running


def send_until_it_fails(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            connection.sendall(data)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65_536):
            received += data
    return bytes(received)


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer with a Content-Length; what there was if the connection ends before."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in received and (data := connection.recv(65_536)):
            received += data
        head, *_ = bytes(received).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        while len(received) < len(head) + 4 + length and (data := connection.recv(65_536)):
            received += data
    return bytes(received)


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def body_of(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def assert_refused(answer: bytes, status: int, words: str, code: str = "INVALID_REQUEST") -> None:
    """Check that it is an error in the envelope, after which the connection is closed."""
    assert status_of(answer) == status
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"connection: close" in head
    body = body_of(answer)
    assert (body["success"], body["data"], body["error"]["code"]) == (False, None, code)
    assert words in body["error"]["message"]
    assert uuid.UUID(body["meta"]["request_id"]).version == 4
    assert f"x-request-id: {body['meta']['request_id']}".encode() in head


def request(*fields: bytes, method: bytes = b"GET", path: bytes = b"/count", host: bytes = b"Host: x\r\n") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + host + b"".join(one + b"\r\n" for one in fields) + b"\r\n"

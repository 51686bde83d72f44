"""What one client can take of a server, over raw connections to a real process with small limits."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from s3seg.errors import ConfigurationError
from s3seg.web.connection_limits import ConnectionLimits
from s3seg.web.server import within_file_limit

SERVE = """
import asyncio, json, sys
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, StreamingResponse
from s3seg.errors import UnavailableError
from s3seg.web.app import build_app
from s3seg.web import edge_app, gpu_app
from s3seg.web.connection_limits import ConnectionLimits
from s3seg.web.logs import configure_logging
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Operation
from s3seg.web.server import run_server

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
    render_error={"edge": edge_app.render_error, "gpu": gpu_app._render_error}[sys.argv[2]], metrics=HttpMetrics(),
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


class TestHeads:
    @pytest.mark.parametrize(
        ("sent", "words"),
        [
            (request(b"A: " + b"a" * 10_000), "the header field 'A' is longer than 9216 bytes"),
            (request(b"N" * 10_000 + b": a"), "is longer than 9216 bytes"),
            (request(*[b"A: a"] * 100), "more than 100 header fields"),
            (request(*[b"A: " + b"a" * 8_000] * 9), "head is longer than 65536 bytes"),
            (request(path=b"/" + b"a" * 9_000), "the URL is longer than 8192 bytes"),
            (request(path=b"/?" + b"a&" * 4_500), "the URL is longer than 8192 bytes"),
        ],
        ids=["value", "name", "fields", "sum", "path", "query"],
    )
    def test_a_head_that_is_too_large_is_431(self, server, sent, words):
        assert_refused(server.ask(sent), 431, words)

    @pytest.mark.parametrize(
        "begin",
        [b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n"],
        ids=["URL", "value", "fields", "lines before"],
    )
    def test_a_head_without_an_end_is_not_read_on(self, impatient_server, begin):
        server = impatient_server
        piece = {b"\r\n": b"\r\n" * 500, b"GET / HTTP/1.1\r\nHost: x\r\n": b"Abc: def\r\n" * 100}.get(
            begin, b"a" * 1000
        )
        before = server.resident_mb()
        with server.connect() as connection:
            connection.sendall(begin)
            send_until_it_fails(connection, piece * 64)
        assert server.resident_mb() - before < 10

    def test_a_client_that_sends_everything_before_it_reads_gets_the_answer(self, server):
        assert_refused(server.ask(request(b"A: " + b"a" * 8 * 2**20)), 431, "head is longer than 65536 bytes")

    def test_limits_that_are_just_kept_are_accepted(self, server):
        token = b"Authorization: Bearer " + b"a" * 8192
        assert status_of(server.ask(request(token, *[b"A: a"] * 98))) == 200
        assert status_of(server.ask(request(*[b"A: " + b"a" * 8_000] * 8))) == 200
        assert status_of(server.ask(request(path=b"/count?" + b"a" * 8_000))) == 200

    @pytest.mark.parametrize("piece", [1, 7, 2048])
    def test_a_head_may_arrive_in_pieces(self, server, piece):
        sent = request(b"A: b", b"C: d")
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(sent), piece):
                connection.sendall(sent[start : start + piece])
            assert status_of(read_answer(connection)) == 200

    @pytest.mark.parametrize(
        "sent",
        [
            b"BLAH\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        ],
    )
    def test_what_is_not_http_is_400_in_the_envelope(self, server, sent):
        assert_refused(server.ask(sent), 400, "not valid HTTP/1.1")

    @pytest.mark.parametrize(
        ("sent", "words"),
        [
            (request(host=b""), "host is missing"),
            (request(b"Host: y"), "host is given more than once"),
            (request(b"Host: x"), "host is given more than once"),
            (request(host=b"Host:\r\n"), "host is not a host name"),
            (request(host=b"Host: a b\r\n"), "host is not a host name"),
            (request(host=b"Host: a, b\r\n"), "host is not a host name"),
            (request(host=b"Host: a/b@c\r\n"), "host is not a host name"),
            (request(b"Authorization: Bearer a", b"Authorization: Bearer b"), "authorization is given more than once"),
            (request(b"Idempotency-Key: a", b"idempotency-key: a"), "idempotency-key is given more than once"),
            (request(b"X-API-Key: a", b"X-API-Key: b"), "x-api-key is given more than once"),
            (request(b"Content-Type: a/b", b"Content-Type: c/d"), "content-type is given more than once"),
        ],
    )
    def test_a_field_with_one_value_is_given_once(self, server, sent, words):
        answer = server.ask(sent)
        assert status_of(answer) == 400
        assert body_of(answer)["error"]["code"] == "INVALID_REQUEST"
        assert words in body_of(answer)["error"]["message"]

    @pytest.mark.parametrize("host", [b"a.example", b"a.example:80", b"127.0.0.1:8000", b"[::1]:8000", b"a_b:80"])
    def test_usual_hosts_are_accepted(self, server, host):
        assert status_of(server.ask(request(host=b"Host: " + host + b"\r\n"))) == 200

    def test_http_1_0_needs_no_host(self, server):
        assert status_of(server.ask(b"GET /count HTTP/1.0\r\n\r\n")) == 200

    def test_an_upgrade_is_answered_in_http_1_1(self, server):
        sent = request(b"Connection: Upgrade", b"Upgrade: websocket")
        assert status_of(server.ask(sent)) == 200

    def test_a_head_that_does_not_arrive_in_time_is_408(self):
        with serving(head_s=0.3) as server, server.connect() as silent:
            assert_refused(server.ask(b"GET /count HTTP/1.1\r\nHos"), 408, "did not arrive within 0.3 seconds")
            assert read_all(silent) == b""  # a connection that never sends anything is closed


class TestBodies:
    @pytest.mark.parametrize(
        "fields", [b"Content-Length: 100\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    )
    def test_a_body_that_does_not_arrive_in_time_is_408(self, fields):
        with serving(grace_s=0.3, bytes_per_s=1000) as server:
            head = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
            assert_refused(server.ask(head + fields), 408, "the body arrives too slowly: 3 bytes")
            assert "echo" not in body_of(server.ask(GET))["served"]
            line = server.log_line(message="request", status=408)
            assert (line["route"], line["error_code"], line["level"]) == ("/echo", "INVALID_REQUEST", "warning")

    def test_a_body_has_a_time_limit_however_fast_it_is(self):
        with serving(body_s=0.3, bytes_per_s=1) as server, server.connect() as connection:
            connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    connection.sendall(b"3\r\nabc\r\n")
                    connection.settimeout(0.01)
                    with contextlib.suppress(TimeoutError):
                        assert connection.recv(1) == b"H"
                        break
                    connection.settimeout(30)
            connection.settimeout(30)
            assert_refused(b"H" + read_answer(connection), 408, "the body arrives too slowly")

    def test_a_body_that_nobody_reads_has_a_time_limit(self):
        with serving(grace_s=0.3, bytes_per_s=1000) as server, server.connect() as connection:
            connection.sendall(b"GET /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
            assert status_of(read_all(connection)) == 200  # and then the connection ends

    @pytest.mark.parametrize(
        "endless",
        [b"3;" + b"a" * 1000, b"0\r\n" + b"A: " + b"a" * 1000, b"0\r\n" + b"A: b\r\n" * 100],
        ids=["extension", "trailer's value", "trailer's fields"],
    )
    def test_what_surrounds_a_body_is_limited_too(self, impatient_server, endless):
        server = impatient_server
        before = server.resident_mb()
        more = endless.partition(b"\r\n")[2] if endless.endswith(b"\r\n") else endless[-1000:]
        with server.connect() as connection:
            connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + endless)
            send_until_it_fails(connection, more * 64)
        assert server.resident_mb() - before < 10

    def test_fields_of_a_trailer_are_not_fields_of_the_request(self, server):
        sent = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n"
        assert body_of(server.ask(sent)) == {"length": 1, "fields": ["host", "transfer-encoding"]}

    @pytest.mark.parametrize("chunk", [1, 100, 65_536])
    def test_bodies_arrive_whole(self, server, chunk):
        body = b"".join(b"%x\r\n%s\r\n" % (chunk, b"a" * chunk) for _ in range(200_000 // chunk))
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert body_of(server.ask(head + body + b"0\r\n\r\n"))["length"] == 200_000 // chunk * chunk


class TestAnswers:
    def test_pipelined_requests_are_answered_in_order(self, server):
        with server.connect() as connection:
            connection.sendall(b"".join(request(b"N: %d" % number) for number in range(300)))
            connection.sendall(request(b"N: end", b"Connection: close"))
            bodies = read_all(connection).split(b"HTTP/1.1 200 OK")[1:]
        served = [body_of(body)["served"][-1] for body in bodies]
        assert served == [*map(str, range(300)), "end"]

    def test_requests_wait_unread_while_an_earlier_one_is_answered(self, server):
        before = server.resident_mb()
        with server.connect() as connection:
            connection.sendall(request(path=b"/slow?s=600"))
            connection.setblocking(False)
            sent, idle = 0, 0
            while idle < 20 and sent < 64 * 2**20:
                try:
                    sent += connection.send(GET * 1000)
                    idle = 0
                except BlockingIOError:
                    idle += 1
                    time.sleep(0.02)
            assert sent < 64 * 2**20  # what fits into the buffers of two sockets
            assert server.resident_mb() - before < 10

    @pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such limit")
    def test_little_of_an_answer_is_made_before_the_client_reads(self, server):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(request(path=b"/large"))
            made = [-1, 0]
            while made[-1] != made[-2]:
                time.sleep(0.05)
                made.append(body_of(server.ask(request(path=b"/made")))["made"])
        assert 0 < made[-1] < 1024 * 1024

    def test_answers_that_nobody_reads_end_the_connection(self):
        with serving(grace_s=0.3, read_bytes_per_s=1e9) as server, server.connect() as connection:
            connection.sendall(request(path=b"/large"))
            server.log_line(message="request", route="/large")  # the request ends while nothing has been read
            assert len(read_all(connection)) < 64 * 2**20

    def test_what_follows_a_refusal_in_order(self, server):
        with server.connect() as connection:
            connection.sendall(request(path=b"/slow?s=0.2") + b"BLAH\r\n\r\n" + GET)
            first, second = read_all(connection).split(b"HTTP/1.1 ")[1:]
        assert first.startswith(b"200")
        assert_refused(b"HTTP/1.1 " + second, 400, "not valid HTTP/1.1")

    def test_what_follows_connection_close_is_not_executed(self, server):
        with server.connect() as connection:
            connection.sendall(request(b"Connection: close", b"N: last") + request(b"N: never"))
            assert read_all(connection).count(b"HTTP/1.1 ") == 1
        assert "never" not in body_of(server.ask(GET))["served"]

    @pytest.mark.parametrize("path", [b"/count", b"/slow?s=0.3"])
    def test_a_half_closed_connection_is_answered(self, server, path):
        answer = server.ask(request(path=path), half_close=True)
        assert status_of(answer) == 200
        assert body_of(answer)["served"]

    def test_every_request_before_a_half_close_is_answered(self, server):
        answers = server.ask(request(path=b"/slow?s=0.3") + GET * 500, half_close=True)
        assert answers.count(b"HTTP/1.1 200") == 501

    def test_a_half_close_within_a_body_executes_nothing(self, server):
        before = body_of(server.ask(GET))["served"].count("echo")
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        assert server.ask(head + b"abc", half_close=True) == b""
        assert body_of(server.ask(GET))["served"].count("echo") == before

    def test_an_event_stream_ends_with_its_client(self):
        with serving() as server:
            with server.connect() as connection:
                connection.sendall(request(path=b"/events"))
                while b"tick" not in connection.recv(65_536):
                    pass
            assert server.log_line(message="request", route="/events")["status"] == 200


class TestConnections:
    def test_idle_connections_give_way_to_new_ones(self):
        with serving(connections=4) as server, contextlib.ExitStack() as stack:
            idle = [stack.enter_context(server.connect()) for _ in range(4)]
            for number in range(20):
                assert status_of(server.ask(request(b"N: %d" % number))) == 200
            assert read_all(idle[0]) == b""  # closed

    def test_a_body_that_does_not_come_gives_way_too(self):
        with serving(connections=2) as server, contextlib.ExitStack() as stack:
            for _ in range(6):
                waiting = stack.enter_context(server.connect())
                waiting.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
                assert status_of(server.ask(GET)) == 200

    def test_a_connection_too_many_is_503_if_all_are_being_answered(self):
        with serving(connections=2) as server, contextlib.ExitStack() as stack:
            busy = [stack.enter_context(server.connect()) for _ in range(2)]
            for connection in busy:
                connection.sendall(request(path=b"/events"))
                while b"tick" not in connection.recv(65_536):
                    pass
            answer = server.ask(GET)
            assert_refused(answer, 503, "too many connections", code="UNAVAILABLE")
            assert b"retry-after: 1\r\n" in answer.lower()

    @pytest.mark.skipif(sys.platform != "linux", reason="limits the process's files")
    def test_failures_to_accept_are_logged_a_few_times_a_minute(self):
        limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))\n"
        with serving(preexec=limit) as server, contextlib.ExitStack() as stack:
            import resource

            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (12, 160))
            for _ in range(40):
                stack.enter_context(server.connect())
            line = server.log_line(level="error")
            assert "cannot accept connections" in line["message"]
            time.sleep(2.5)  # asyncio tries again after a second, so there are several failures to report
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (160, 160))
            assert status_of(server.ask(GET)) == 200
            server.ask(request(path=b"/crash"))
            server.log_line(message="request", route="/crash")
            assert sum("cannot accept" in line["message"] for line in server.lines) == 1

    def test_connections_are_fewer_than_the_files_of_the_process(self):
        code = (
            "import resource, sys\n"
            "from s3seg.web.connection_limits import ConnectionLimits\n"
            "from s3seg.web.server import within_file_limit\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (100, int(sys.argv[1])))\n"
            "print(within_file_limit(ConnectionLimits(connections=1000)).connections)\n"
        )
        for files, connections in (("628", "250"), ("2128", "1000")):
            made = subprocess.run([sys.executable, "-c", code, files], capture_output=True, text=True, check=False)
            assert made.stdout.strip() == connections, made.stderr
        made = subprocess.run([sys.executable, "-c", code, "120"], capture_output=True, text=True, check=False)
        assert "ConfigurationError" in made.stderr
        assert "raise the limit (ulimit -n)" in made.stderr


def test_the_gpu_service_refuses_in_its_own_error_body():
    with serving(service="gpu", grace_s=0.3, head_s=0.3, connections=2) as server:
        for sent, status, code in (
            (b"BLAH\r\n\r\n", 400, "INVALID_REQUEST"),
            (request(b"A: " + b"a" * 10_000), 431, "INVALID_REQUEST"),
            (request(b"Host: y"), 400, "INVALID_REQUEST"),
            (b"GET /", 408, "INVALID_REQUEST"),
            (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", 408, "INVALID_REQUEST"),
        ):
            answer = server.ask(sent)
            assert status_of(answer) == status
            assert set(body_of(answer)) == {"error"}
            assert body_of(answer)["error"]["code"] == code


class TestLogLines:
    def test_requests_are_logged_with_client_and_error_code(self):
        with serving() as server:
            for path in (b"/count", b"/nowhere", b"/busy", b"/crash"):
                server.ask(request(path=path))
            server.ask(b"BLAH\r\n\r\n")
            lines = []
            while len(lines) < 5 + 1:
                lines.append(server.log_line(message="request"))
        found = [(line["status"], line["level"], line.get("error_code")) for line in lines]
        assert found[1:] == [
            (200, "info", None),
            (404, "info", "NOT_FOUND"),
            (503, "warning", "UNAVAILABLE"),
            (500, "error", "INTERNAL_ERROR"),
            (400, "warning", "INVALID_REQUEST"),
        ]
        assert {line["client"] for line in lines} == {"127.0.0.1"}
        assert all(uuid.UUID(line["request_id"]) for line in lines)


def test_too_few_files_are_refused(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(ConfigurationError, match="64 files"):
        within_file_limit(ConnectionLimits())

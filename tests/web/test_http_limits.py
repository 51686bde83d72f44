"""Heads and bodies that clients may send, over raw connections to a real process with small limits."""

from __future__ import annotations

import contextlib
import socket
import uuid

import pytest

from s3seg.errors import ConfigurationError
from s3seg.web.connection_limits import ConnectionLimits
from s3seg.web.server import within_file_limit
from tests.web.limited_server import (
    GET,
    assert_refused,
    body_of,
    read_all,
    read_answer,
    request,
    send_until_it_fails,
    serving,
    status_of,
)


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

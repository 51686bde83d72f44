"""How clients read answers, and how many connections there may be, on a real process with small limits."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

import pytest

from tests.web.limited_server import (
    GET,
    assert_refused,
    body_of,
    read_all,
    request,
    serving,
    status_of,
)


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

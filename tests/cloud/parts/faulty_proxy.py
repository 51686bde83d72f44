"""An HTTP proxy that causes faults on request."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class FaultyProxy:
    """A running proxy, and the faults of the next requests.

    The faults are ``"503"`` (respond without forwarding the request), ``"cut"`` (return half of the body), ``"lost"``
    (forward the request, but return no response) and ``"pass"`` (no fault).

    Attributes:
        url: URL of the proxy.
        plan: Faults of the next requests, in order.
        always: Fault of the requests after those.
    """

    url: str = ""
    plan: list[str] = field(default_factory=list)
    always: str = "pass"

    def next(self) -> str:
        return self.plan.pop(0) if self.plan else self.always


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy in front of ``upstream``."""
    proxy = FaultyProxy()
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            what = proxy.next()
            if what == "503":
                self.answer(503, [("Content-Type", "text/plain")], b"busy")
                return
            connection = http.client.HTTPConnection(host, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            if what == "lost":
                self.close_connection = True
                return
            headers = [
                pair for pair in response.getheaders() if pair[0].lower() not in ("connection", "date", "server")
            ]
            self.answer(response.status, headers, content, cut=what == "cut")

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding"):
                    self.send_header(name, value)
            told = {name.lower(): value for name, value in headers}.get("content-length", "0")
            self.send_header("Content-Length", told if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.wfile.flush()
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do_PATCH = handle_any

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="faulty proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(15)

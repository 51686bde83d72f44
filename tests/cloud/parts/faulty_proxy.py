"""A proxy before an HTTP server that makes proxy as it is told to."""

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
    """What will happen to the next requests, in order; those beyond pass.

    ``"503"``: refused before it is passed on. ``"cut"``: half of the answer's body. ``"lost"``: passed on, no answer.

    Attributes:
        url: The proxy's address.
        plan: What is still to happen.
        always: What happens once the plan is at its end.
    """

    url: str = ""
    plan: list[str] = field(default_factory=list)
    always: str = "pass"

    def next(self) -> str:
        return self.plan.pop(0) if self.plan else self.always


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Serve the proxy from threads."""
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
            self.send_header("Content-Length", str(len(content)))
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

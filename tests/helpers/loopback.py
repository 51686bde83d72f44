"""Local servers for tests: one with arbitrary HTTP answers, and a mirror of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve GET and HEAD requests on loopback with ``answer``; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                answer(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(
    request: BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


@dataclass
class Mirror:
    """A mirror of the hub: the files it serves, its faults, and the requests it received."""

    files: dict[str, bytes]
    repo_id: str = "facebook/sam3"
    commit: str = COMMIT
    gated: str | bool = "manual"  # as the hub's API states it
    card: dict[str, str] = field(default_factory=dict)  # the metadata of the model card
    token: str | None = None  # if set, the only token with access
    known_tokens: tuple[str, ...] = ()  # valid tokens without access
    cuts: list[int] = field(default_factory=list)  # lengths at which the next answers of the storage are cut
    ranges: bool = True
    corrupt: bool = False
    gone: bool = False  # the storage answers 404
    endpoint: str = ""
    storage: str = ""
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def asked_for(self, part: str, method: str = "GET") -> list[tuple[str, str, str | None, str | None]]:
        """Return (method, path, Range, Authorization) of the requests whose path contains ``part``."""
        return [request for request in self.requests if part in request[1] and request[0] == method]

    @contextlib.contextmanager
    def running(self) -> Iterator[Mirror]:
        """Run the hub and, on another origin, the storage to which large files are redirected."""
        with serving(self._hub) as self.endpoint, serving(self._storage) as storage:
            self.storage = storage.replace("127.0.0.1", "localhost")  # another host, as with the real hub
            yield self

    def _hub(self, request: BaseHTTPRequestHandler) -> None:
        self._record(request)
        if re.fullmatch(rf"/api/models/{self.repo_id}(/revision/(main|{COMMIT}))?", request.path):
            info = {
                "id": self.repo_id,
                "sha": self.commit,
                "gated": self.gated,
                "cardData": self.card,
                "siblings": [{"rfilename": name} for name in self.files],
            }
            reply(request, 200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        elif request.path.startswith(f"/api/models/{self.repo_id}/revision/"):
            reply(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif match := re.fullmatch(rf"/{self.repo_id}/resolve/(main|{COMMIT})/(.+)", request.path):
            if self._has_access(request):
                self._resolve(request, match[2])
        else:
            reply(
                request,
                404,
                b"{}",
                {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"},
            )

    def _has_access(self, request: BaseHTTPRequestHandler) -> bool:
        sent = request.headers.get("Authorization")
        if self.token is None or sent == f"Bearer {self.token}":
            return True
        name = f"model {self.repo_id}"
        if sent in {f"Bearer {token}" for token in self.known_tokens}:
            status = 403
            said = f"Access to {name} is restricted and you are not in the authorized list."
        else:
            status = 401
            said = f"Access to {name} is restricted. Please log in."
        reply(request, status, said.encode(), {"X-Error-Code": "GatedRepo", "X-Error-Message": said})
        return False

    def _resolve(self, request: BaseHTTPRequestHandler, name: str) -> None:
        if name not in self.files:
            reply(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        content = self.files[name]
        headers = {"X-Repo-Commit": COMMIT}
        if name.endswith((".safetensors", ".pt")):
            linked = {
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            }
            reply(request, 302, b"", {**headers, **linked, "Location": f"{self.storage}/{name}?signed"})
            return
        digest = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        reply(request, 200, content, {**headers, "ETag": f'"{digest}"'})

    def _storage(self, request: BaseHTTPRequestHandler) -> None:
        self._record(request)
        if self.gone:
            reply(request, 404, b"no such key")
            return
        content = self.files[request.path.lstrip("/").partition("?")[0]]
        if self.corrupt:
            content = bytes(len(content))
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "")) if self.ranges else None
        start = int(asked[1]) if asked else 0
        body = content[start:]
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Connection", "close")
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)

    def _record(self, request: BaseHTTPRequestHandler) -> None:
        headers = request.headers
        self.requests.append((request.command, request.path, headers.get("Range"), headers.get("Authorization")))

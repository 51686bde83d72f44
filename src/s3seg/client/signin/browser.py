"""Receive the answer of a sign-in in the browser, on an address that only this machine can reach (RFC 8252)."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from s3seg.errors import AuthInvalidError

_PATH = "/signed-in"
_PAGE = (
    "<!doctype html><meta charset=utf-8><title>s3seg</title>"
    "<body style='font:16px sans-serif;margin:4em auto;max-width:30em'><p>{}</p>"
)


class Callback:
    """Waits for the browser to come back with a code.

    Attributes:
        redirect: Where to send the browser; it contains a secret that only this sign-in knows.
    """

    def __init__(self, redirect: str, answers: queue.Queue[str | AuthInvalidError]) -> None:
        self.redirect = redirect
        self._answers = answers

    def code(self, *, timeout_s: float) -> str:
        """Return the code that the browser brings.

        Raises:
            AuthInvalidError: The user or the provider refused, or nothing came within ``timeout_s`` seconds.
        """
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise AuthInvalidError(
                f"nobody has signed in with the browser for {timeout_s:.0f} seconds; try again"
            ) from None
        if isinstance(answer, AuthInvalidError):
            raise answer
        return answer


@contextmanager
def callback() -> Iterator[Callback]:
    """Listen on a free port of 127.0.0.1 while the ``with`` block runs."""
    state = secrets.token_urlsafe(32)
    answers: queue.Queue[str | AuthInvalidError] = queue.Queue(maxsize=1)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a slow client

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            fields = {name: values[0] for name, values in parse_qs(asked.query).items()}
            if asked.path != _PATH or not secrets.compare_digest(fields.get("state", "").encode(), state.encode()):
                self._answer(404, "This is not the address of a sign-in that is under way.")
                return
            if "code" in fields:
                self._put(fields["code"])
                self._answer(200, "You are signed in. You can close this page and go back to the terminal.")
                return
            why = fields.get("error_description") or fields.get("error") or "it brought no code"
            self._put(AuthInvalidError(f"the sign-in in the browser failed: {why[:200]}"))
            self._answer(400, "The sign-in failed. The terminal says why.")

        def _put(self, answer: str | AuthInvalidError) -> None:
            with suppress(queue.Full):  # the first answer counts
                answers.put_nowait(answer)

        def _answer(self, status: int, text: str) -> None:
            page = _PAGE.format(text).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the address has the code."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="s3seg sign-in", daemon=True)
    thread.start()
    try:
        yield Callback(f"http://127.0.0.1:{server.server_port}{_PATH}?state={state}", answers)
    finally:
        server.shutdown()
        server.server_close()

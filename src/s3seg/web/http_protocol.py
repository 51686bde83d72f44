"""HTTP/1.1 connections, with limits on what a client can take: bytes, header fields, time, and connections.

`LimitedProtocol` is uvicorn's protocol with these limits. A request that is refused here is answered by an application
too, so that it gets an id, a log line, and the service's own error body like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.parse
from typing import Any, cast

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from s3seg.errors import S3segError, UnavailableError
from s3seg.web.connection_limits import Admission, ConnectionLimits
from s3seg.web.errors import REFUSAL, RefusedRequestError
from s3seg.web.http_cycle import LimitedCycle
from s3seg.web.turns import Turns

_MAX_BUFFERED = 64 * 1024  # bytes of a body that the application does not read yet
_PIECE = 2 * 1024  # bytes parsed at a time: so few that they cannot hold many requests
_REFUSED_AT_ONCE = 32  # connections beyond the limit that are answered 503; further ones are closed without an answer
_TCP_CLOSED = 7  # state of a Linux socket whose peer has reset the connection


class _RestIgnoredError(Exception):
    """Stops the parser: what follows a request with ``Connection: close`` is not a request."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. The server calls `check` about twice a second.

    Args:
        config: uvicorn's.
        server_state: uvicorn's; its connections are counted.
        app_state: State of the application's lifespan.
        limits: What the client can take.
        admission: Whether there is room for one more connection; shared by all of the server.
        turns: When a request is handed to the application; shared likewise.
        refuse: Answers the requests that are refused here; the error is in the scope under `REFUSAL`.
        _loop: The event loop.

    Attributes:
        active_at: When the client last sent something, or was sent the end of an answer; of the loop's clock.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        admission: Admission,
        turns: Turns,
        refuse: ASGIApp,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser: httptools.HttpRequestParser  # uvicorn declares no type, and sets None at the end
        self._limits = limits
        self._admission = admission
        self._turns = turns
        self._refuse_app = refuse
        self._last: LimitedCycle | None = None  # the request that was parsed last
        self._running: LimitedCycle | None = None  # the request that is being answered
        self._held = b""  # received, and not parsed until earlier requests are answered
        self._in_body = False
        self._discarding = False
        self._half_closed = False
        self.active_at = self.loop.time()
        self._head_since: float | None = self.active_at
        self._lingering_since: float | None = None
        self._raw_bytes = 0  # parsed since the last request, or the last byte of a body
        self._body_bytes = 0
        self._body_waited_s = 0.0
        self._sent_bytes = 0
        self._read_bytes = 0  # of those sent, when the write buffer was last empty
        self._write_waited_s = 0.0

    # ---- connections ----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection if there is room for it, or if room can be made."""
        super().connection_made(transport)
        _probe_idle_peer(transport)
        others = (one for one in self.connections if isinstance(one, LimitedProtocol) and one is not self)
        if self._admission.has_room(others, count=len(self.connections), now=self.loop.time()):
            return
        if len(self.connections) > self._limits.connections + _REFUSED_AT_ONCE:
            transport.abort()
        else:
            self.refuse(UnavailableError("too many connections; try again", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of the connection that its client is gone."""
        unanswered = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            unanswered.append(self._running)
        for cycle in unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._discarding = True
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def give_way(self) -> None:
        """Close the connection at once, so that another can have its place."""
        self.connections.discard(self)
        self.transport.abort()

    @property
    def waits_for_client(self) -> bool:
        """Whether the client is to act next: send a request or the rest of one, or read an answer."""
        if self._lingering_since is not None or self._answered:
            return True
        return self._awaits_body or self.transport.get_write_buffer_size() > 0

    @property
    def _answered(self) -> bool:
        return self._last is None or self._last.response_complete

    @property
    def _awaits_body(self) -> bool:
        """Whether a body is incomplete because of the client; the application may also not be ready for it."""
        return (
            self._in_body
            and not self.flow.read_paused
            and not (self._last is not None and self._last.waiting_for_100_continue)
        )

    def check(self, passed_s: float) -> None:
        """Close the connection, or refuse its request, if the client has taken too long.

        Args:
            passed_s: Seconds since the last check.
        """
        now, limits = self.loop.time(), self._limits
        lingered_s = 0.0 if self._lingering_since is None else now - self._lingering_since
        if self._is_stalled(passed_s) or lingered_s > limits.linger_s or self._is_reset():
            self.transport.abort()
        elif self._discarding or self.transport.is_closing():
            return
        elif self._in_body:
            self._check_body(passed_s)
        elif self._head_since is not None and now - self._head_since > limits.head_s and self._answered:
            if self._raw_bytes == 0:
                self.transport.close()
            else:
                self.refuse(RefusedRequestError(f"the head did not arrive within {limits.head_s:g} seconds", 408))

    def _check_body(self, passed_s: float) -> None:
        if not self._awaits_body:
            return
        self._body_waited_s += passed_s
        limits = self._limits
        allowed_s = min(limits.body_s, limits.grace_s + self._body_bytes / limits.bytes_per_s)
        if self._body_waited_s > allowed_s:
            arrived = f"{self._body_bytes} bytes in {self._body_waited_s:.0f} seconds"
            lowest = f"{limits.bytes_per_s / 1024:g} KiB per second"
            self.refuse(RefusedRequestError(f"the body arrives too slowly: {arrived}; send at least {lowest}", 408))

    def _is_stalled(self, passed_s: float) -> bool:
        """Whether the client has taken too long to read what was sent."""
        buffered = self.transport.get_write_buffer_size()
        if buffered == 0:
            self._write_waited_s = 0.0
            self._read_bytes = self._sent_bytes
            return False
        self._write_waited_s += passed_s
        read = self._sent_bytes - buffered - self._read_bytes
        return self._write_waited_s > self._limits.grace_s + read / self._limits.read_bytes_per_s

    def _is_reset(self) -> bool:
        """Whether a client that had closed its sending side has left altogether, which no event tells."""
        if not self._half_closed or not hasattr(socket, "TCP_INFO"):
            return False
        with contextlib.suppress(OSError, AttributeError):
            info = self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            return info[0] == _TCP_CLOSED
        return False

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer the requests that had arrived as a whole when the client closed its sending side."""
        if self._lingering_since is not None or self._answered or self._in_body or self._running is None:
            return None
        if self._running.response_started and self._running.chunked_encoding:
            return None  # a stream of events goes on until its client leaves, and that looks the same
        self._half_closed = True
        if not self._held and self._last is not None:
            self._last.keep_alive = False
        return True

    # ---- reading ----

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, as far as earlier requests are answered."""
        self.active_at = self.loop.time()
        if self._discarding:
            return
        self._unset_keepalive_if_required()
        self._parse(self._held + data if self._held else data)

    def _parse(self, data: bytes) -> None:
        start = 0
        while start < len(data) and not self.pipeline and not self._discarding:
            piece = data if len(data) <= _PIECE else data[start : start + _PIECE]
            start += len(piece)
            self._parse_piece(piece)
        self._held = b"" if self._discarding else data[start:]
        if self._held:
            self.flow.pause_reading()

    def _parse_piece(self, piece: bytes) -> None:
        if self._head_since is None and not self._in_body:
            self._head_since = self.active_at
        self._raw_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:  # not supported: the request is answered in HTTP/1.1
            self._discarding = True  # nothing that follows can be parsed
            if self._last is not None:
                self._last.keep_alive = False
        except httptools.HttpParserError as err:
            reason = err.__context__
            if isinstance(reason, _RestIgnoredError):
                self._discarding = True
            elif isinstance(reason, RefusedRequestError):
                self.refuse(reason)
            else:
                self.refuse(RefusedRequestError("the request is not valid HTTP/1.1", 400))
        if self._raw_bytes > self._limits.head_bytes:  # the parser holds a field back until it is complete
            self.refuse(self._head_too_large())

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._last is not None and not self._last.keep_alive:
            raise _RestIgnoredError
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Read a part of the request target."""
        super().on_url(url)
        if len(self.url) > self._limits.target_bytes:
            raise RefusedRequestError(f"the URL is longer than {self._limits.target_bytes} bytes", 431)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a field of the head. Those of a trailer are dropped."""
        limits = self._limits
        if len(name) + len(value) > limits.field_bytes:
            field = name[:40].decode("latin-1")
            raise RefusedRequestError(f"the header field {field!r} is longer than {limits.field_bytes} bytes", 431)
        if self._in_body:
            return
        if len(self.headers) >= limits.fields:
            raise RefusedRequestError(f"the request has more than {limits.fields} header fields", 431)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request to the application, or let it wait until earlier ones are answered."""
        if self._raw_bytes > self._limits.head_bytes:
            head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head > self._limits.head_bytes:
                raise self._head_too_large()
        parsed = httptools.parse_url(self.url)
        version = self.parser.get_http_version()
        if version == "1.1" and not any(name == b"host" for name, _ in self.headers):
            raise RefusedRequestError("the header field host is missing", 400)
        raw_path = parsed.path
        path = raw_path.decode("ascii")
        self.scope.update(
            method=self.parser.get_method().decode("ascii"),
            http_version=version,
            path=self.root_path + (urllib.parse.unquote(path) if "%" in path else path),
            raw_path=self.root_path.encode("ascii") + raw_path,
            query_string=parsed.query or b"",
        )
        self._in_body = True
        self._head_since = None
        self._raw_bytes = self._body_bytes = 0
        self._body_waited_s = 0.0
        self._take(
            cast(ASGIApp, self.app), LimitedCycle(self, keep_alive=version != "1.0" and self.parser.should_keep_alive())
        )

    def on_body(self, body: bytes) -> None:
        """Buffer a part of the body; stop reading while the application does not take it."""
        self._raw_bytes = 0
        self._body_bytes += len(body)
        cycle = self._last
        if cycle is None or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > _MAX_BUFFERED:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_body = False
        self._raw_bytes = 0
        if self._last is not None:
            self._last.more_body = False
            self._last.message_event.set()

    def _head_too_large(self) -> RefusedRequestError:
        return RefusedRequestError(f"the request's head is longer than {self._limits.head_bytes} bytes", 431)

    # ---- answering ----

    def refuse(self, error: S3segError) -> None:
        """Answer the present request with an error, once those before it are answered, and close the connection."""
        if self._discarding:
            return
        self._discarding = True
        cycle = self._last
        if not self._in_body or cycle is None:
            self._answer_refused(error)
        elif cycle.response_complete:
            self.transport.close()
        else:
            cycle.keep_alive = False
            cycle.refusal = error  # raised where the application reads the body
            cycle.message_event.set()

    def _answer_refused(self, error: S3segError) -> None:
        headers = self.headers or []
        kept = (b"origin", b"x-request-id")
        super().on_message_begin()  # a new scope, without what was sent
        self.scope.update(method="GET", path="", raw_path=b"", query_string=b"")
        self.headers += [field for field in headers if field[0] in kept]
        self.scope[REFUSAL] = error  # type: ignore[typeddict-unknown-key]
        cycle = LimitedCycle(self, keep_alive=False)
        cycle.more_body = False
        self._take(self._refuse_app, cycle)

    def _take(self, app: ASGIApp, cycle: LimitedCycle) -> None:
        """Start the application on a request, or queue the request behind earlier ones."""
        answered, self._last, self.cycle = self._answered, cycle, cycle
        self._unset_keepalive_if_required()
        if answered:
            self._start_asgi_task(cycle, app)  # type: ignore[arg-type]
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle if isinstance(cycle, LimitedCycle) else None
        start = super()._start_asgi_task
        self._turns.take(lambda: None if cycle.disconnected else start(cycle, app))

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.active_at = self.loop.time()
        if self._lingering_since is not None:
            return
        if self._head_since is not None:
            self._head_since = self.active_at
        super().on_response_complete()
        if self._held and not self.pipeline and not self._discarding:
            self._parse(self._held)
        if self._half_closed and self._answered:
            self.transport.close()

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        self._sent_bytes += len(data)
        self.transport.write(data)

    def close(self) -> None:
        """Close the connection after an answer, so that a client which is still sending can read it."""
        still_sending = (self._in_body or self._discarding) and not self._half_closed
        if not still_sending or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._discarding = True
        self._lingering_since = self.loop.time()
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.flow.resume_reading()


def _probe_idle_peer(transport: asyncio.Transport) -> None:
    """Let the kernel find out whether a silent client is still there."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError, AttributeError):  # the options differ between systems
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

"""HTTP/1.1 connections on which everything that a client can take is limited: bytes, header fields, time, and places.

`LimitedProtocol` is uvicorn's protocol with these limits. A request that is refused here is answered by an application
too, so that it gets an id, a log line, and the service's own error body like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import socket
import urllib.parse
from dataclasses import dataclass
from typing import Any, cast

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from s3seg.errors import S3segError, UnavailableError
from s3seg.web.errors import REFUSAL, RefusedRequestError
from s3seg.web.turns import Turns

_MAX_BUFFERED = 64 * 1024  # bytes of a body that the application does not read yet
_PIECE = 2 * 1024  # bytes parsed at a time: so few that they cannot hold many requests
_REFUSED_AT_ONCE = 32  # connections beyond the limit that are answered 503; further ones are closed without an answer
_PAUSE_S = 0.05  # after no connection could give way, until one is looked for again
_TCP_CLOSED = 7  # state of a Linux socket whose peer has reset the connection


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What the clients of a server can take.

    Attributes:
        connections: Open at the same time. Beyond it, the connection that has waited longest for its client is closed;
            if none waits for its client, the new one is answered 503.
        head_bytes: Of the request line and all header fields; also of a chunk's extension, or of a trailer.
        target_bytes: Of the request target, the part of the URL after the host.
        fields: Header fields of a request.
        field_bytes: Name and value of one of them; a token of 8,192 characters fits.
        head_s: Seconds for the first request of a connection to begin, and for a head to arrive.
        idle_s: Seconds until an unused connection is closed.
        grace_s: Seconds until the speed of a client is checked, both sending and receiving.
        bytes_per_s: Lowest speed of sending after that, on average.
        read_bytes_per_s: Lowest speed of reading answers, likewise.
        body_s: Seconds for a body to arrive, however fast its client is.
        linger_s: Seconds that a client which is still sending has to read a refusal.
    """

    connections: int = 1000
    head_bytes: int = 64 * 1024
    target_bytes: int = 8 * 1024
    fields: int = 100
    field_bytes: int = 9 * 1024
    head_s: float = 10.0
    idle_s: int = 5
    grace_s: float = 20.0
    bytes_per_s: float = 32 * 1024
    read_bytes_per_s: float = 4 * 1024
    body_s: float = 400.0
    linger_s: float = 2.0


class Admission:
    """Decides which connections of a server stay when there are too many.

    Args:
        limits: What clients can take.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._none_until = 0.0

    def has_room(self, new: LimitedProtocol) -> bool:
        """Whether a new connection can stay; those that have waited longest for their clients give way to it."""
        limit = self._limits.connections
        if len(new.connections) <= limit:
            return True
        if new.loop.time() < self._none_until:
            return False
        others = (one for one in new.connections if isinstance(one, LimitedProtocol) and one is not new)
        waiting = [one for one in others if one.waits_for_client]
        # several at a time, as finding them takes a millisecond where there are a thousand
        for one in heapq.nsmallest(max(1, limit // 32), waiting, key=lambda one: one.active_at):
            new.connections.discard(one)  # type: ignore[arg-type]
            one.transport.abort()
        if not waiting:
            self._none_until = new.loop.time() + _PAUSE_S
        return bool(waiting)


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
        self._last: _Cycle | None = None  # the request that was parsed last
        self._running: _Cycle | None = None  # the request that is being answered
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
        if self._admission.has_room(self):
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
            cast(ASGIApp, self.app), _Cycle(self, keep_alive=version != "1.0" and self.parser.should_keep_alive())
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
        cycle = _Cycle(self, keep_alive=False)
        cycle.more_body = False
        self._take(self._refuse_app, cycle)

    def _take(self, app: ASGIApp, cycle: _Cycle) -> None:
        """Start the application on a request, or queue the request behind earlier ones."""
        answered, self._last, self.cycle = self._answered, cycle, cycle
        self._unset_keepalive_if_required()
        if answered:
            self._start_asgi_task(cycle, app)  # type: ignore[arg-type]
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle if isinstance(cycle, _Cycle) else None
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


class _Cycle(RequestResponseCycle):
    """A request and its answer. Unlike uvicorn's, it reads from the connection only while its body is incomplete."""

    def __init__(self, protocol: LimitedProtocol, *, keep_alive: bool) -> None:
        super().__init__(
            scope=protocol.scope,
            transport=_Transport(protocol),  # type: ignore[arg-type]
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self.refusal: S3segError | None = None

    async def receive(self) -> Any:
        """Return the next part of the body, or that the client is gone."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete and self.refusal is None:
            if self.more_body:
                self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self.refusal is not None:
            if self.response_started:
                return {"type": "http.disconnect"}
            raise self.refusal
        message = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self.body = bytearray()
        return message


class _Transport:
    """What a `_Cycle` writes to: its connection, which counts what is sent and closes gently."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        self._protocol.close()


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

"""Running an application under uvicorn, with limits on what its clients can take.

SIGTERM drains it, a second SIGTERM stops it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from s3seg.errors import ConfigurationError
from s3seg.web.connection_limits import Admission, ConnectionLimits
from s3seg.web.errors import REFUSAL, error_response
from s3seg.web.http_protocol import LimitedProtocol
from s3seg.web.turns import Turns

_log = logging.getLogger("s3seg.server")
_CLEAN_UP_S = 1.0
_CHECK_S = 0.5
_BACKLOG = 2048  # connections that the system accepts before the process does
_ACCEPTED_AT_ONCE = 64
_ACCEPT_ERROR_LOG_S = 15.0
_UNSENT_BYTES = 128 * 1024  # of an answer that the system holds beyond what it has sent
_OTHER_FILES = 128  # databases, logs, refused connections ...
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def run_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    drain_s: float = 30.0,
    on_drain: Callable[[], None] | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
    limits: ConnectionLimits | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    After the first signal no new connections are accepted, ``on_drain`` is called, and requests in progress get
    ``drain_s`` seconds; then the application's lifespan ends. A second signal ends the process within a second.

    Args:
        app: An ASGI application.
        host: Address to listen on.
        port: Port, or 0 for any free one; the log says which.
        drain_s: Seconds that requests in progress get to finish.
        on_drain: Called once, in the event loop's thread, when draining begins.
        on_stop: Called after a second signal; gets one second to clean up.
        limits: What clients can take; fewer connections where the process may not open enough files.

    Raises:
        ConfigurationError: The address is not available.
    """
    limits = within_file_limit(limits or ConnectionLimits())
    refuse = getattr(getattr(app, "state", None), "refuse", None) or _refuse_in_plain_text
    config = uvicorn.Config(
        app,
        http=partial(  # type: ignore[arg-type]
            LimitedProtocol, limits=limits, admission=Admission(limits), turns=Turns(), refuse=refuse
        ),
        ws="none",
        backlog=_ACCEPTED_AT_ONCE,
        timeout_keep_alive=limits.idle_s,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as err:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {err.strerror or err}; choose another port") from err
    # Connections inherit this; asyncio sets it only on sockets that were made with IPPROTO_TCP. Without it, a response
    # of two writes waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # They inherit this too: the system takes no more of an answer than the client's window and this, rather than
    # megabytes, so that a client which does not read its answers is noticed after a few.
    with contextlib.suppress(OSError, AttributeError):  # not every system has it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    with listener:
        address = listener.getsockname()
        _log.info("listening", extra={"host": address[0], "port": address[1]})
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again after it has shut down
            _Server(config, on_drain, on_stop).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A uvicorn server that checks its connections, with two hooks that uvicorn does not have.

    ``on_drain`` must run before requests in progress are awaited, so that the worker stops claiming tasks; the
    lifespan, uvicorn's own hook, ends after them. And a second SIGTERM must end the process while the lifespan is
    still ending: uvicorn ignores it (only a second SIGINT has an effect), and waits for the lifespan in any case.
    `tests/web/test_server.py` and `tests/journeys/test_gpu_processes.py` hold both.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_drain: Callable[[], None] | None,
        on_stop: Callable[[], Awaitable[None]] | None,
    ) -> None:
        super().__init__(config)
        self._on_drain = on_drain
        self._on_stop = on_stop
        self._checked_at = time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_AcceptErrors())
        await super().startup(sockets)
        for listener in sockets or ():
            # asyncio has set the system's queue to the number of connections that it accepts at once
            listener.listen(_BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if (passed_s := now - self._checked_at) >= _CHECK_S:
            self._checked_at = now
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedProtocol):
                    connection.check(passed_s)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # runs in a signal handler, so it only sets flags
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("draining")
        if self._on_drain is not None:
            self._on_drain()
        shutdown = asyncio.ensure_future(super().shutdown(sockets))
        while not shutdown.done() and not self.force_exit:
            await asyncio.wait({shutdown}, timeout=0.1)
        if not self.force_exit:
            return shutdown.result()
        await stop_at_once(self._on_stop)  # when forced, uvicorn skips the lifespan
        shutdown.cancel()  # uvicorn then raises the signal again, which ends the process
        return None


async def stop_at_once(on_stop: Callable[[], Awaitable[None]] | None) -> None:
    """Clean up after a second signal: run ``on_stop`` for at most a second, then write out the log."""
    if on_stop is not None:
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await on_stop()
        except Exception as err:
            _log.warning("could not clean up before stopping", extra={"why": str(err) or type(err).__name__})
    for handler in logging.getLogger().handlers:
        handler.flush()


class _AcceptErrors:
    """An event loop's exception handler that logs failures to accept connections a few times a minute.

    asyncio reports each of them, thousands a second while the process may not open another file.
    """

    def __init__(self) -> None:
        self._logged_at = -_ACCEPT_ERROR_LOG_S
        self._unlogged = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _NO_FILES and "socket" in context):
            loop.default_exception_handler(context)
            return
        self._unlogged += 1
        if (now := loop.time()) - self._logged_at < _ACCEPT_ERROR_LOG_S:
            return
        _log.error(
            "cannot accept connections: %s; raise the limit of open files (ulimit -n)",
            error.strerror,
            extra={"times": self._unlogged},
        )
        self._logged_at, self._unlogged = now, 0


def within_file_limit(limits: ConnectionLimits) -> ConnectionLimits:
    """Return limits with at most as many connections as the process can open files for.

    A connection may need a second file, that of an object which it reads. The soft limit is raised as far as the hard
    one allows.

    Raises:
        ConfigurationError: The process may open too few files for any connection.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * limits.connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    with contextlib.suppress(OSError, ValueError):
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    connections = min(limits.connections, (soft - _OTHER_FILES) // 2)
    if connections < 1:
        raise ConfigurationError(f"this process may open {soft} files, which is too few; raise the limit (ulimit -n)")
    return dataclasses.replace(limits, connections=connections)


async def _refuse_in_plain_text(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a refused request of an application that has no error body of its own."""
    error = error_response(scope[REFUSAL])
    await PlainTextResponse(error.message, error.status, error.headers)(scope, receive, send)

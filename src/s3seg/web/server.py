"""Running an application under uvicorn: SIGTERM drains it, a second SIGTERM stops it at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from s3seg.errors import ConfigurationError

_log = logging.getLogger("s3seg.server")
_CLEAN_UP_S = 1.0


def run_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    drain_s: float = 30.0,
    on_drain: Callable[[], None] | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
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

    Raises:
        ConfigurationError: The address is not available.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as err:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {err.strerror or err}; choose another port") from err
    # Connections inherit this; asyncio sets it only on sockets that were made with IPPROTO_TCP. Without it, a response
    # of two writes waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener:
        address = listener.getsockname()
        _log.info("listening", extra={"host": address[0], "port": address[1]})
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again after it has shut down
            _Server(config, on_drain, on_stop).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A uvicorn server with two hooks that uvicorn does not have, added in its public methods.

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

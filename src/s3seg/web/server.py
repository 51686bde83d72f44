"""Running an application: SIGTERM drains, a second one stops."""

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
_LAST_WORDS_S = 1.0


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

    The first signal closes the door: no new connections, ``on_drain`` is called, and requests in flight get
    ``drain_s`` seconds; then the application's lifespan ends. A second signal ends the process, within a second.

    Args:
        app: An ASGI application.
        host: Address to listen on.
        port: Port, or 0 for any that is free; the log says which.
        drain_s: Seconds that requests in flight get.
        on_drain: Called once, in the event loop's thread, when draining begins.
        on_stop: Gets a second, after a second signal, to leave things in order.

    Raises:
        ConfigurationError: The address cannot be listened on.
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
    # Inherited by connections; asyncio sets it only on sockets that were made with IPPROTO_TCP. Without it, an answer
    # in two writes waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener:
        address = listener.getsockname()
        _log.info("listening", extra={"host": address[0], "port": address[1]})
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it is done
            _Server(config, on_drain, on_stop).run(sockets=[listener])


class _Server(uvicorn.Server):
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
        # a signal handler: nothing but flags here
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("draining")
        if self._on_drain is not None:
            self._on_drain()
        ending = asyncio.ensure_future(super().shutdown(sockets))
        while not ending.done() and not self.force_exit:  # the base class waits for the lifespan, come what may
            await asyncio.wait({ending}, timeout=0.1)
        if not self.force_exit:
            return ending.result()
        await last_words(self._on_stop)  # without connections to wait for, the base class leaves out the lifespan
        ending.cancel()  # then uvicorn raises the signal again, which ends the process at once
        return None


async def last_words(on_stop: Callable[[], Awaitable[None]] | None) -> None:
    """What a process does between a second signal and its end: ``on_stop``, for a second at most, and its log."""
    if on_stop is not None:
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await on_stop()
        except Exception as err:
            _log.warning("stopped in disorder", extra={"why": str(err) or type(err).__name__})
    for handler in logging.getLogger().handlers:
        handler.flush()

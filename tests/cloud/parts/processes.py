"""Starts server processes, waits for them, and stops them."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def free_ports(count: int) -> list[int]:
    """Return ports that are free at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Server:
    """A child process that can be stopped and started again at the same address."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], Any],
        stop_signal: signal.Signals = signal.SIGTERM,
        **popen: Any,
    ) -> None:
        self._name = name
        self._command = [str(word) for word in command]
        self._log = log
        self._ready = ready
        self._stop_signal = stop_signal
        self._popen = popen
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, timeout_s: float = 60) -> None:
        """Start the server and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, **self._popen)
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                self._ready()
            except Exception as err:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.stop()
                    said = self._log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self._name} did not start ({err!r}); its log ends with:\n{said}") from err
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop the server, if it is running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(self._stop_signal)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a server, and stop it at the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop()

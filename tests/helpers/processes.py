"""Services in processes of their own, which tests stop and kill."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

EDGE = "from s3seg.commands.serve import app; app()"
WORKER = "from tests.helpers.quick_worker import main; main()"
_ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A Python process that can be killed and started again; its output goes to a file."""

    def __init__(self, code: str, *arguments: str, log: Path, **environment: str) -> None:
        self._command = [sys.executable, "-c", code, *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("S3SEG_", "API_"))}
        path = os.pathsep.join([*sys.path, str(_ROOT)])
        same = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "S3SEG_DTYPE": "float32"}  # results as in this process
        self._environment = {**inherited, **same, **environment}
        self._log = log
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command, env=self._environment, cwd=self._log.parent, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Send SIGKILL, if it is running."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        running, self._running = self._running, None
        if running is None:
            return 0
        running.send_signal(how)
        return running.wait(30)


@contextlib.contextmanager
def edge_process(data: Path, **environment: str) -> Iterator[tuple[Process, str]]:
    """Run ``s3seg serve edge`` on a free port; yields the process, once it answers, and its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    data.mkdir(exist_ok=True)
    environment = {"S3SEG_DATA_DIR": str(data), "S3SEG_RATE_LIMITS": "off", **environment}
    process = Process(EDGE, "edge", "--port", str(port), log=data / "edge.log", **environment)
    process.start()
    try:
        wait_for(url)
        yield process, url
    finally:
        process.kill()


def wait_for(url: str, path: str = "/health", *, seconds: float = 60) -> None:
    """Wait until a service answers 200."""
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url + path, timeout=5).status_code == 200:
                return
        assert time.monotonic() < give_up, f"{url} does not answer"
        time.sleep(0.05)


def wait_until_listening(port: int) -> None:
    """Wait until something on this machine accepts connections on a port."""
    give_up = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert time.monotonic() < give_up, f"nothing listens on port {port}"
        time.sleep(0.05)

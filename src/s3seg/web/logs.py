"""Logs as JSON, a line an event, each with the request's id.

Code anywhere logs with the standard library: ``log.info("stored", extra={"task_id": ...})``. The fields in
``extra``, and those bound by `bound` around it, become fields of the line. Nothing that a client sent is ever
part of a message's layout, so it cannot forge lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_encode = json.JSONEncoder(default=str).encode
_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("s3seg_bound_log_fields", default=None)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line logged inside, also by tasks that are started there."""
    token = _bound.set({**(_bound.get() or {}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> Mapping[str, Any]:
    """The fields that are bound here and now, such as ``request_id``."""
    return _bound.get() or {}


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", ...fields}``; exceptions as ``error`` and ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_bound.get() or {}),
            **{name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD},
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = self.formatException(record.exc_info)
        return _encode(line)


class GatheringHandler(logging.Handler):
    """Writes lines from a thread of its own, many at a time: the event loop never waits for the disk or a pipe.

    What is logged just before the process is killed may be lost; an orderly end writes everything.
    """

    def __init__(self, stream: TextIO, *, every_s: float = 0.1) -> None:
        super().__init__()
        self._stream = stream
        self._every_s = every_s
        self._lines: list[str] = []
        self._waiting = threading.Event()
        threading.Thread(target=self._write_forever, name="s3seg-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
        if not self._waiting.is_set():
            self._waiting.set()

    def flush(self) -> None:
        """Write what has been gathered; `logging` calls it when the process ends."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
        if lines:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()

    def _write_forever(self) -> None:
        while self._waiting.wait():
            time.sleep(self._every_s)
            self._waiting.clear()
            self.flush()


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log of the process to ``stream`` (stderr) as JSON. Called by the commands that serve."""
    handler = GatheringHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # what no line shows need not be found out for each; see "Optimization" in the documentation of logging
    logging._srcfile = None  # pyright: ignore[reportAttributeAccessIssue]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for chatty in ("httpx", "httpcore", "botocore", "urllib3", "PIL"):
        logging.getLogger(chatty).setLevel("WARNING")

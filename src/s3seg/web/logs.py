"""Logs as JSON, one line per event, each with the request's id.

Code anywhere logs with the standard library: ``log.info("stored", extra={"task_id": ...})``. The fields in
``extra``, and those bound by `bound` around it, become fields of the line. Values that a client sent are always
JSON strings, so they cannot forge lines, and long ones are cut.
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

from cachetools import LRUCache
from pydantic_core import to_json

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_encode = json.JSONEncoder(default=str).encode
_MAX_VALUE = 2_000  # characters
_SHORT = frozenset({float, bool, type(None)})
_MAX_TRACE = 20_000
_MAX_WAITING = 100_000  # lines, of a few hundred bytes each: 30 MB
_requests: LRUCache[str, str] = LRUCache(10_000)  # ids of requests by those of their tasks
_requests_lock = threading.Lock()
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
    """Return the fields that are bound here, such as ``request_id``."""
    return _bound.get() or {}


def remember_task(task_id: str) -> None:
    """Give the present request's id to all later lines about a task, also where a worker claimed it by itself.

    Holds for this process and the last 10,000 tasks. A task keeps the id of its first request.
    """
    if (request_id := bound_fields().get("request_id")) is not None:
        with _requests_lock:
            _requests.setdefault(task_id, request_id)


def _request_of(task_id: object) -> str | None:
    if not isinstance(task_id, str):
        return None
    with _requests_lock:
        return _requests.get(task_id)


class JsonFormatter(logging.Formatter):
    """Formats as ``{"time", "level", "logger", "message", ...fields}``; exceptions add ``error``, ``trace``.

    A line with a ``task_id`` and no ``request_id`` gets the id that `remember_task` was called with.
    """

    def __init__(self, fields: Mapping[str, Any] | None = None) -> None:
        """Add these fields to every line."""
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON, with the fields that are bound where it is called."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
            **self._fields,
            **(_bound.get() or {}),
            **{name: _limited(value) for name, value in vars(record).items() if name not in _STANDARD_FIELDS},
        }
        if "request_id" not in line and (request_id := _request_of(line.get("task_id"))) is not None:
            line["request_id"] = request_id
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = _cut(self.formatException(record.exc_info), _MAX_TRACE)
        return _as_json(line)


def _as_json(line: dict[str, Any]) -> str:
    """Return a line in ASCII, whatever the values are.

    pydantic's encoder takes a fifth of the time of the standard library's (1.0 against 5.5 us), which is 3 % of a poll,
    but writes other characters as they are.
    """
    with contextlib.suppress(ValueError):  # values that it does not know, and text that is not Unicode
        if (encoded := to_json(line)).isascii():
            return encoded.decode("ascii")
    return _encode(line)


def _limited(value: Any) -> Any:
    if type(value) in _SHORT:  # isinstance() with a union would be built for each value, at 5 us a line
        return value
    text = value if isinstance(value, str) else _encode(value)
    return value if len(text) <= _MAX_VALUE else _cut(text)


def _cut(text: str, limit: int = _MAX_VALUE) -> str:
    """Return the text, without its middle if it is long: the end of a traceback says most."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"


class BatchingHandler(logging.Handler):
    """Writes lines from a background thread, many at a time: the event loop never waits for the disk or a pipe.

    What is logged just before the process is killed may be lost; an orderly exit writes everything. While the stream
    takes nothing, such as a pipe that nobody reads, up to 100,000 lines wait; further ones are left out, and counted.

    The standard library's `QueueHandler` and `QueueListener` wake their thread and write for every single line, after
    each of which the event loop waits to get the interpreter back: measured, a poll then takes 15 % more processor
    time (602 against 521 us, the least of 8 turns with 16 connections).

    Args:
        stream: Where lines are written.
        interval_s: Seconds that lines are gathered before they are written.
    """

    def __init__(self, stream: TextIO, *, interval_s: float = 0.1) -> None:
        super().__init__()
        self._stream = stream
        self._interval_s = interval_s
        self._lines: list[str] = []
        self._left_out = 0
        self._has_lines = threading.Event()
        threading.Thread(target=self._write_forever, name="s3seg-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record here, where its fields are bound, and leave the line to the thread."""
        if len(self._lines) >= _MAX_WAITING:
            self._left_out += 1
            return
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self) -> None:
        """Write the lines that are waiting; `logging` calls this when the process ends."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            left_out, self._left_out = self._left_out, 0
        if left_out:
            said = f"{left_out} log lines were left out"
            lines.append(self.format(logging.makeLogRecord({"name": __name__, "levelname": "WARNING", "msg": said})))
        if lines:
            with contextlib.suppress(OSError, ValueError):  # the stream is closed
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()

    def _write_forever(self) -> None:
        while self._has_lines.wait():
            time.sleep(self._interval_s)
            self._has_lines.clear()
            self.flush()


def configure_logging(
    level: str = "INFO", stream: TextIO | None = None, *, fields: Mapping[str, Any] | None = None
) -> None:
    """Send every log of the process to ``stream`` (stderr) as JSON. Called by the commands that serve.

    Args:
        level: The least level that is logged.
        stream: Where lines are written.
        fields: Added to every line.
    """
    handler = BatchingHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(fields))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Lines do not show where they were logged. Not looking that up, as described under "Optimization" in the logging
    # HOWTO, makes a line 25 % cheaper (89 against 119 us), which is 5 % of a poll.
    logging._srcfile = None  # pyright: ignore[reportAttributeAccessIssue]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # the same: no line shows them
    for chatty in ("httpx", "httpcore", "botocore", "urllib3", "PIL"):
        logging.getLogger(chatty).setLevel("WARNING")

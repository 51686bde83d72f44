"""The handler that writes log lines from a background thread."""

from __future__ import annotations

import io
import json
import logging
import threading

from s3seg.web import logs
from s3seg.web.logs import BatchingHandler, JsonFormatter


class Stalling(io.StringIO):
    """A stream, such as a pipe that nobody reads, whose first write takes until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled, self.go_on, self.written = threading.Event(), threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.stalled.set()
        self.go_on.wait(10)
        count = super().write(text)
        self.written.set()
        return count


def record(number: int) -> logging.LogRecord:
    return logging.LogRecord("s3seg.web", logging.INFO, __file__, 1, f"line {number}", None, None)


def test_lines_that_nobody_reads_do_not_fill_the_memory_and_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(logs, "_MAX_WAITING", 100)
    stream = Stalling()
    handler = BatchingHandler(stream, interval_s=0.01)  # a first line stalls its thread
    handler.setFormatter(JsonFormatter())
    handler.handle(record(0))
    assert stream.stalled.wait(10)
    for number in range(1, 501):
        handler.handle(record(number))
    assert len(handler._lines) == 100
    stream.go_on.set()
    assert stream.written.wait(10)
    handler.flush()
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    messages = [line["message"] for line in written]
    assert sorted(messages) == sorted([f"line {number}" for number in range(101)] + ["400 log lines were left out"])
    (told,) = [line for line in written if "left out" in line["message"]]
    assert told["level"] == "warning"
    handler.handle(record(501))
    handler.flush()
    assert json.loads(stream.getvalue().splitlines()[-1])["message"] == "line 501"

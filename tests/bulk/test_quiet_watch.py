"""A run that waits for ever says so."""

from __future__ import annotations

import threading

from s3seg.bulk.quiet_watch import QuietWatch


def test_a_warning_comes_when_nothing_ends_and_comes_again():
    lines: list[str] = []
    twice = threading.Event()

    def warn(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            twice.set()

    with QuietWatch(warn, "look there", quiet_s=0.02):
        assert twice.wait(30)
    assert lines[0] == "nothing has ended for 0 minutes; look there"


def test_no_warning_comes_while_something_ends():
    lines: list[str] = []
    with QuietWatch(lines.append, "look there", quiet_s=3600) as watch:
        for _ in range(100):
            watch.touch()
    assert lines == []

"""A warning when nothing has ended for minutes, which Ray itself does not give."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

QUIET_S = 300.0


class QuietWatch:
    """Warns, as a context around work, each time that nothing has ended for ``quiet_s`` seconds.

    Args:
        on_warning: Called with a line for the user, on a thread of the watch.
        advice: The end of that line.
        quiet_s: Seconds until a warning.
    """

    def __init__(self, on_warning: Callable[[str], None], advice: str, *, quiet_s: float = QUIET_S) -> None:
        self._on_warning = on_warning
        self._advice = advice
        self._quiet_s = quiet_s
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="s3seg-bulk-watch", daemon=True)

    def __enter__(self) -> QuietWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def touch(self) -> None:
        """Note that something has ended."""
        self._last = time.monotonic()

    def _look(self) -> None:
        while not self._ended.wait(self._quiet_s / 10):
            quiet = time.monotonic() - self._last
            if quiet >= self._quiet_s:
                self._on_warning(f"nothing has ended for {quiet / 60:.0f} minutes; {self._advice}")
                self._last = time.monotonic()

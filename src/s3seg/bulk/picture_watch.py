"""A limit on the time that a picture may take in a worker process."""

from __future__ import annotations

import faulthandler
from types import TracebackType

_STDERR = 2


class PictureWatch:
    """Ends the process if no picture is finished for too long, as a context around the work on pictures.

    Python's own watchdog thread does it, which runs even if the code that hangs does not let go of the interpreter's
    lock. It writes to standard error where every thread was, and ends the process with status 1.

    Args:
        limit_s: Seconds; None for no limit.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s

    def __enter__(self) -> PictureWatch:
        self.restart()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        if self._limit_s is not None:
            faulthandler.cancel_dump_traceback_later()

    def restart(self) -> None:
        """Begin to count again: a picture is finished."""
        if self._limit_s is not None:
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=_STDERR)

"""A point in time before which a part of the measurement has to end."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """Tells how much time is left, so that a measurement that would not fit is never begun.

    Args:
        until: Seconds since the epoch, so that a process can pass it to another.
        clock: Returns the time in seconds since the epoch.
    """

    def __init__(self, until: float, *, clock: Callable[[], float] = time.time) -> None:
        self.until = until
        self._clock = clock

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 once it has passed."""
        return max(0.0, self.until - self._clock())

    def allows(self, seconds: float) -> bool:
        """Whether something that takes this long would end in time."""
        return self.left > seconds

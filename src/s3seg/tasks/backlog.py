"""How much work waits, and how many workers would do it in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

RECENT_S = 300.0
"""The length of the window in which ended tasks are counted, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The tasks that have not ended, and the rate at which tasks end.

    Attributes:
        waiting: Tasks that no worker holds, those that wait for another attempt included.
        running: Tasks that a worker holds.
        workers: Workers that hold a task.
        oldest_wait_s: Age of the oldest task that no worker holds, in seconds; 0 if there is none.
        ended_recently: Tasks that ended in ``done`` in the last `RECENT_S` seconds.
    """

    waiting: int
    running: int
    workers: int
    oldest_wait_s: float
    ended_recently: int

    @property
    def rate(self) -> float:
        """Tasks done per second, on average over the last `RECENT_S` seconds."""
        return self.ended_recently / RECENT_S


def workers_for(*, arrivals: float, waiting: int, wait_s: float, rate: float, busiest: float = 0.8) -> int:
    """Return how many workers keep up with new tasks and do the waiting ones within ``wait_s`` seconds.

    While tasks wait, ``n`` workers do ``n * rate`` tasks a second, of which ``arrivals`` are new, so the waiting ones
    are done after ``waiting / (n * rate - arrivals)`` seconds. When none wait, no worker should be busy for more than
    the share ``busiest`` of the time, since the wait grows without bound as that share nears 1.

    Args:
        arrivals: New tasks a second.
        waiting: Tasks that wait now.
        wait_s: Seconds after which the last of them should be done.
        rate: Tasks that one worker does a second; more than 0.
        busiest: Largest share of the time that a worker should be busy, more than 0, at most 1.
    """
    catching_up = (arrivals + waiting / wait_s) / rate
    keeping_up = arrivals / (rate * busiest)
    return math.ceil(max(catching_up, keeping_up) - 1e-9)

"""How many workers keep up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.tasks.backlog import RECENT_S, Backlog, workers_for


def test_an_idle_queue_needs_no_worker() -> None:
    assert workers_for(arrivals=0, waiting=0, wait_s=10, rate=2) == 0


@pytest.mark.parametrize(
    ("arrivals", "waiting", "wait_s", "expected"),
    [
        (0, 100, 10, 5),  # 10 a second for 10 seconds
        (0, 101, 10, 6),
        (0, 1, 1000, 1),
        (4, 0, 10, 3),  # two would be busy all the time
        (1.6, 0, 10, 1),  # busy for 80 % of the time
        (4, 40, 10, 4),  # 4 a second for the new ones, 4 for the waiting ones
    ],
)
def test_workers_for_a_wished_wait(arrivals: float, waiting: int, wait_s: float, expected: int) -> None:
    assert workers_for(arrivals=arrivals, waiting=waiting, wait_s=wait_s, rate=2) == expected


@given(arrivals=st.floats(0, 100), waiting=st.integers(0, 10_000), wait_s=st.floats(1, 1000), rate=st.floats(0.01, 100))
def test_the_planned_workers_do_the_waiting_tasks_in_time(
    arrivals: float, waiting: int, wait_s: float, rate: float
) -> None:
    spare = workers_for(arrivals=arrivals, waiting=waiting, wait_s=wait_s, rate=rate) * rate - arrivals
    assert spare * wait_s >= waiting * (1 - 1e-6) - 1e-6


def test_the_rate_is_an_average_over_the_window() -> None:
    backlog = Backlog(waiting=0, running=0, workers=0, oldest_wait_s=0, ended_recently=int(RECENT_S) * 2)
    assert backlog.rate == 2

"""A discrete-event simulation of workers that poll one database.

The database is a queue before a few servers that work alike: each call waits for one that is free, and takes the time
that was measured. Workers and requests are as in `benchmarks.fleet.real`: a worker asks for one task, works, reports
it and asks again at once; if there is none, it pauses for ``poll_s`` seconds, half more or less. Meanwhile it looks for
webhooks to send, as every worker does.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DELIVERIES_S = 2.0
"""Average seconds between two looks of a worker for webhooks to send."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers and their work.

    Attributes:
        workers: Number of workers.
        task_s: Seconds that a task takes.
        poll_s: Seconds between two looks of a worker that found nothing.
        busy: Share of the workers' time that the submitted tasks take.
    """

    workers: int
    task_s: float
    poll_s: float
    busy: float

    @property
    def arrivals(self) -> float:
        """Tasks that are submitted in a second."""
        return self.busy * self.workers / self.task_s


@dataclass(frozen=True, slots=True)
class Calls:
    """Seconds that a server is busy with each call, and the number of servers."""

    servers: int
    idle: float
    claim: float
    finish: float
    submit: float
    deliveries: float

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> Calls:
        """Take the times from the rates with many connections, and the number of servers from the time of one alone."""
        claim = measured["claim"]
        servers = max(1, round(claim["per_second"] * claim["alone_ms"] / 1000))
        busy = {
            name: servers / measured[name]["per_second"] for name in ("idle", "claim", "finish", "submit", "deliveries")
        }
        return cls(servers, **busy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What happened in a run, real or simulated.

    Attributes:
        workers, poll_s, busy: Of the fleet.
        claims_per_s: Claims that got a task.
        polls_per_s: Claims that got none.
        wait_p50_ms, wait_p99_ms: From submit to claim; 0 if there were no tasks.
        poll_p50_ms, poll_p99_ms: Of a claim that got none; 0 if there were no such claims.
        used: Share of the database's time that was used; None where it is not known.
        waiting: Tasks that nobody had claimed at the end.
        failed: Calls that failed, such as for a deadlock or a time-out.
    """

    workers: int
    poll_s: float
    busy: float
    claims_per_s: float
    polls_per_s: float
    wait_p50_ms: float
    wait_p99_ms: float
    poll_p50_ms: float
    poll_p99_ms: float
    used: float | None
    waiting: int
    failed: int = 0


def percentile(values: list[float], share: float) -> float:
    """Return the value below which this share of the values is; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Simulation:
    def __init__(self, fleet: Fleet, calls: Calls, seed: int) -> None:
        self.fleet, self.calls = fleet, calls
        self.now = 0.0
        self.random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._free = calls.servers
        self._queue: deque[tuple[str, float, Callable[[float], None]]] = deque()
        self.used_s = 0.0
        self.tasks: deque[float] = deque()
        self.waits: list[float] = []
        self.polls: list[float] = []
        self.claims = 0

    def at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), action))

    def call(self, kind: str, then: Callable[[float], None]) -> None:
        """Send a call; ``then`` gets the time at which it was sent, once it is done."""
        self._queue.append((kind, self.now, then))
        self._serve()

    def _serve(self) -> None:
        while self._free and self._queue:
            kind, sent, then = self._queue.popleft()
            if kind == "claim" and not self.tasks:
                kind = "idle"
            took = getattr(self.calls, kind)
            self._free -= 1
            self.used_s += took
            task = self.tasks.popleft() if kind == "claim" else None
            self.at(took, lambda kind=kind, sent=sent, then=then, task=task: self._done(kind, sent, then, task))

    def _done(self, kind: str, sent: float, then: Callable[[float], None], task: float | None) -> None:
        self._free += 1
        if kind == "claim" and task is not None:
            self.claims += 1
            self.waits.append(self.now - task)
            self.at(self.fleet.task_s, lambda: self.call("finish", lambda _: self.poll()))
        elif kind == "idle":
            self.polls.append(self.now - sent)
            self.at(self.fleet.poll_s * self.random.uniform(0.5, 1.5), self.poll)
        else:
            then(sent)
        self._serve()

    def poll(self) -> None:
        self.call("claim", lambda _: None)

    def look_for_deliveries(self) -> None:
        self.call(
            "deliveries", lambda _: self.at(DELIVERIES_S * self.random.uniform(0.5, 1.5), self.look_for_deliveries)
        )

    def submit(self) -> None:
        self.call("submit", lambda _: self.tasks.append(self.now))
        self.at(self.random.expovariate(self.fleet.arrivals), self.submit)

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] < seconds:
            self.now, _, action = heapq.heappop(self._events)
            action()


def simulate(fleet: Fleet, calls: Calls, *, seconds: float, seed: int = 0) -> Seen:
    """Simulate a fleet for so many seconds, the same each time."""
    run = _Simulation(fleet, calls, seed)
    for _ in range(fleet.workers):
        run.at(run.random.uniform(0, fleet.poll_s), run.poll)
        run.at(run.random.uniform(0, DELIVERIES_S), run.look_for_deliveries)
    if fleet.arrivals:
        run.at(0.0, run.submit)
    run.run(seconds)
    return Seen(
        workers=fleet.workers,
        poll_s=fleet.poll_s,
        busy=fleet.busy,
        claims_per_s=run.claims / seconds,
        polls_per_s=len(run.polls) / seconds,
        wait_p50_ms=statistics.median(run.waits) * 1000 if run.waits else 0.0,
        wait_p99_ms=percentile(run.waits, 0.99) * 1000,
        poll_p50_ms=statistics.median(run.polls) * 1000 if run.polls else 0.0,
        poll_p99_ms=percentile(run.polls, 0.99) * 1000,
        used=min(1.0, run.used_s / (seconds * calls.servers)),
        waiting=len(run.tasks),
    )

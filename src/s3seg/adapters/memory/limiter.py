"""Rate limits within one process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from s3seg.tasks.limits import RATE_LIMITS, RATE_WINDOW_S, Action, RateTable, Tier
from s3seg.tasks.rate_limit import RateDecision, decide
from s3seg.tasks.records import Identity


class MemoryRateLimiter:
    """A `RateLimiter` for one process: an exact moving window, a few microseconds per call.

    Args:
        table: Actions allowed in any 60 seconds.
        clock: Seconds that never go backwards.
    """

    def __init__(self, *, table: RateTable = RATE_LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._times: dict[tuple[str, Action], deque[float]] = {}  # newest first
        self._swept_at = clock()

    async def take(self, caller: Identity, action: Action, tier: Tier) -> RateDecision:
        """See `RateLimiter.take`."""
        now = self._clock()
        self._forget_the_idle(now)
        limit = self._table[tier][action]
        times = self._times.setdefault((caller.user_id, action), deque())
        while times and times[-1] <= now - RATE_WINDOW_S:
            times.pop()
        decision = decide(action, count=len(times), oldest=times[-1] if times else None, limit=limit, now=now)
        if decision.allowed:
            times.appendleft(now)
        return decision

    async def check(self) -> None:
        """See `Part.check`."""

    async def aclose(self) -> None:
        """See `Part.aclose`."""

    def _forget_the_idle(self, now: float) -> None:
        # once a window, so that memory is bounded by who was active in the last two
        if now - self._swept_at < RATE_WINDOW_S:
            return
        self._swept_at = now
        gone = [bucket for bucket, times in self._times.items() if times[0] <= now - RATE_WINDOW_S]
        for bucket in gone:
            del self._times[bucket]

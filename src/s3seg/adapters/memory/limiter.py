"""A rate limiter for one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cachetools import TTLCache

from s3seg.tasks.limits import RATE_LIMITS, RATE_WINDOW_S, UNLIMITED, Action, RateTable, Tier
from s3seg.tasks.rate_limit import RateDecision, take
from s3seg.tasks.records import Identity


class MemoryRateLimiter:
    """A `RateLimiter` for one process, with an exact sliding window.

    Args:
        table: Number of actions allowed in any 60 seconds.
        clock: Returns the time in seconds, from a clock that nobody sets.
    """

    def __init__(self, *, table: RateTable = RATE_LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        # times of the allowed actions by user and action, newest first; an entry expires a minute after its last use
        self._times: TTLCache[tuple[str, Action], tuple[float, ...]] = TTLCache(math.inf, RATE_WINDOW_S, timer=clock)

    async def take(self, caller: Identity, action: Action, tier: Tier) -> RateDecision:
        """Decide whether the caller may do one more action, and count it if so."""
        key, limit = (caller.user_id, action), self._table[tier][action]
        if limit >= UNLIMITED:  # nothing to remember
            return take(action, (), limit=limit, now=self._clock())[0]
        decision, times = take(action, self._times.get(key, ()), limit=limit, now=self._clock())
        self._times[key] = times
        return decision

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

"""The rate limiter on SQLite."""

from __future__ import annotations

import time
from collections.abc import Callable

from s3seg.adapters.sqlite import counts
from s3seg.adapters.sqlite.database import Database
from s3seg.tasks.limits import RATE_LIMITS, Action, RateTable, Tier
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import Identity


class SqliteRateLimiter:
    """A `RateLimiter` in an SQLite file, for all processes of a machine, across crashes and restarts.

    Args:
        database: The file, with the schema `s3seg.adapters.sqlite.schema.COUNTS`.
        table: Number of actions allowed in any 60 seconds.
        clock: Returns the time in seconds, from a clock that all processes share and nobody sets.
    """

    def __init__(
        self, database: Database, *, table: RateTable = RATE_LIMITS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = database
        self._table = table
        self._clock = clock

    async def take(self, caller: Identity, action: Action, tier: Tier) -> RateDecision:
        """Decide whether the caller may do one more action, and count it if so."""
        limit = self._table[tier][action]
        return await self._db.write(lambda db: counts.take(db, caller.user_id, action, limit=limit, now=self._clock()))

    async def check(self) -> None:
        """Check that the database file is writable."""
        await self._db.check()

    async def aclose(self) -> None:
        """Close the database, after pending work has finished."""
        await self._db.aclose()

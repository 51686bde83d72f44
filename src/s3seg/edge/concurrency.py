"""A bounded number of places for what takes memory or time, of which nobody may hold more than a share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from s3seg.errors import UnavailableError


class ConcurrencyLimiter:
    """ConcurrencyLimiter that are held while a block runs, given out in no particular order.

    Args:
        total: How many there are.
        of_one_user: How many of them one user may hold.
        wait_s: Seconds to wait for one.
        of_what: What they are for, for the message.
    """

    def __init__(self, total: int, *, of_one_user: int, wait_s: float, of_what: str) -> None:
        self._total = total
        self._of_one_user = of_one_user
        self._wait_s = wait_s
        self._of_what = of_what
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def take(self, user_id: str) -> AsyncGenerator[None, None]:
        """Hold a place.

        Raises:
            UnavailableError: None became free, of all or of the user's own, within the time.
        """
        try:
            async with asyncio.timeout(self._wait_s), self._changed:
                await self._changed.wait_for(lambda: self._is_free(user_id))
                self._held[user_id] += 1
        except TimeoutError:
            raise UnavailableError(f"too many {self._of_what} at the same time; try again", retry_after=2) from None
        try:
            yield
        finally:
            self._held[user_id] -= 1
            self._held += Counter()  # forgets users who hold none
            async with self._changed:
                self._changed.notify_all()

    def _is_free(self, user_id: str) -> bool:
        return self._held.total() < self._total and self._held[user_id] < self._of_one_user

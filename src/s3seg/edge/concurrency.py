"""A limit on how many operations run at the same time, in total and per user."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from s3seg.errors import UnavailableError


class ConcurrencyLimiter:
    """Limits how many blocks of code run at the same time. Waiting callers are served in no particular order.

    Args:
        total: Blocks that may run at the same time.
        per_user: Blocks that may run at the same time for one user.
        wait_s: Seconds that a caller waits for its turn.
        name: What is limited, for the error message, such as ``uploads``.
    """

    def __init__(self, total: int, *, per_user: int, wait_s: float, name: str) -> None:
        self._total = total
        self._per_user = per_user
        self._wait_s = wait_s
        self._name = name
        self._running: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncGenerator[None, None]:
        """Run the ``async with`` block within the limits.

        Raises:
            UnavailableError: The limits left no room for the user within the waiting time.
        """
        try:
            async with asyncio.timeout(self._wait_s), self._changed:
                await self._changed.wait_for(lambda: self._has_room(user_id))
                self._running[user_id] += 1
        except TimeoutError:
            raise UnavailableError(f"too many {self._name} at the same time; try again", retry_after=2) from None
        try:
            yield
        finally:
            self._running[user_id] -= 1
            self._running += Counter()  # drops users whose count is 0
            async with self._changed:
                self._changed.notify_all()

    def _has_room(self, user_id: str) -> bool:
        return self._running.total() < self._total and self._running[user_id] < self._per_user

"""A limit on how many operations run at the same time, in total and per user."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from s3seg.errors import UnavailableError


class UserShares:
    """Counts places that users hold, so that no few of them hold all.

    A user gets another place while holding fewer than ``per_user``, and at most half as many as there are free:
    the fewer are left, the fewer a user gets. Of 32 places with at most 8 for a user, four users get 26 at most.

    Args:
        total: Places.
        per_user: Places that one user may hold.
    """

    def __init__(self, total: int, *, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._held: Counter[str] = Counter()

    def has_room(self, user_id: str) -> bool:
        """Whether the user may take a place."""
        free = self._total - self._held.total()
        held = self._held[user_id]
        return free > 0 and held < self._per_user and (held == 0 or 2 * held <= free)

    def take(self, user_id: str) -> None:
        """Take a place."""
        self._held[user_id] += 1

    def give_back(self, user_id: str) -> None:
        """Give a place back."""
        self._held[user_id] -= 1
        if self._held[user_id] <= 0:
            del self._held[user_id]


class ConcurrencyLimiter:
    """Limits how many blocks of code run at the same time. Waiting callers are served in no particular order.

    Args:
        total: Blocks that may run at the same time.
        per_user: Of these, for one user; fewer while few places are left, as in `UserShares`.
        wait_s: Seconds that a caller waits for its turn.
        name: What is limited, for the error message, such as ``uploads``.
    """

    def __init__(self, total: int, *, per_user: int, wait_s: float, name: str) -> None:
        self._wait_s = wait_s
        self._name = name
        self._running = UserShares(total, per_user=per_user)
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncGenerator[None, None]:
        """Run the ``async with`` block within the limits.

        Raises:
            UnavailableError: The limits left no room for the user within the waiting time.
        """
        try:
            async with asyncio.timeout(self._wait_s), self._changed:
                await self._changed.wait_for(lambda: self._running.has_room(user_id))
                self._running.take(user_id)
        except TimeoutError:
            raise UnavailableError(f"too many {self._name} at the same time; try again", retry_after=2) from None
        try:
            yield
        finally:
            self._running.give_back(user_id)
            async with self._changed:
                self._changed.notify_all()

"""A limit on how many operations run at the same time, in total and per user."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from s3seg.errors import UnavailableError


class UserShares:
    """Counts places that users hold, so that a few of them cannot hold all.

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

    def is_full(self) -> bool:
        """Whether no place is free for anybody."""
        return self._held.total() >= self._total

    def held_by(self, user_id: str) -> int:
        """Return how many places the user holds."""
        return self._held[user_id]

    def take(self, user_id: str) -> None:
        """Take a place."""
        self._held[user_id] += 1

    def give_back(self, user_id: str) -> None:
        """Give a place back."""
        self._held[user_id] -= 1
        if self._held[user_id] <= 0:
            del self._held[user_id]


class Slot:
    """A place that a block of code holds; see `ConcurrencyLimiter.slot`."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.since = time.monotonic()
        self._end: asyncio.Timeout | None = None

    @property
    def gives_way(self) -> bool:
        """Whether the block may be ended now for one that waits."""
        return self._end is not None

    @asynccontextmanager
    async def giving_way(self) -> AsyncGenerator[None, None]:
        """Let the ``async with`` block be ended for another caller: wrap what depends on the speed of a client.

        Raises:
            UnavailableError: It was ended.
        """
        end = asyncio.timeout(None)
        try:
            async with end:
                self._end = end
                try:
                    yield
                finally:
                    self._end = None
        except TimeoutError:
            if end.expired():
                raise UnavailableError(
                    "the request took too long while others were waiting; try again", retry_after=5
                ) from None
            raise

    def end(self) -> None:
        """End the block."""
        if self._end is not None:
            self._end.reschedule(asyncio.get_running_loop().time())
            self._end = None


class ConcurrencyLimiter:
    """Limits how many blocks of code run at the same time. Waiting callers are served in no particular order.

    When all places are taken, a user who holds none gets the place of a block that gives way: one of the user who holds
    most, or, if nobody holds more than one, the oldest, once it has had ``patience_s``. So no number of slow clients
    keeps others out.

    Args:
        total: Blocks that may run at the same time.
        per_user: Of these, for one user; fewer while few places are left, as in `UserShares`.
        wait_s: Seconds that a caller waits for its turn.
        name: What is limited, for the error message, such as ``uploads``.
        patience_s: Seconds that the only block of a user has at least.
    """

    def __init__(self, total: int, *, per_user: int, wait_s: float, name: str, patience_s: float = 5.0) -> None:
        self._wait_s = wait_s
        self._name = name
        self._patience_s = patience_s
        self._shares = UserShares(total, per_user=per_user)
        self._running: set[Slot] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncGenerator[Slot, None]:
        """Run the ``async with`` block within the limits.

        Raises:
            UnavailableError: The limits left no room for the user within the waiting time.
        """
        try:
            async with asyncio.timeout(self._wait_s), self._changed:
                if self._shares.is_full() and not self._shares.held_by(user_id):
                    self._make_room()
                await self._changed.wait_for(lambda: self._shares.has_room(user_id))
                self._shares.take(user_id)
        except TimeoutError:
            raise UnavailableError(f"too many {self._name} at the same time; try again", retry_after=2) from None
        slot = Slot(user_id)
        self._running.add(slot)
        try:
            yield slot
        finally:
            self._running.discard(slot)
            self._shares.give_back(user_id)
            async with self._changed:
                self._changed.notify_all()

    def _make_room(self) -> None:
        giving_way = [slot for slot in self._running if slot.gives_way]
        if not giving_way:
            return
        slot = min(giving_way, key=lambda slot: (-self._shares.held_by(slot.user_id), slot.since))
        if self._shares.held_by(slot.user_id) > 1 or time.monotonic() - slot.since >= self._patience_s:
            slot.end()

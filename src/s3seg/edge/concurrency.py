"""A limit on how many operations run at the same time, in total and per user."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from s3seg.errors import UnavailableError


class UserShares:
    """Counts places that users hold, so that a few of them cannot hold all.

    A user gets another place while holding fewer than ``per_user``, and at most half as many as there are free:
    the fewer are left, the fewer a user gets. Of 32 places with at most 8 for a user, four users get 26 at most.

    Args:
        total: Places.
        per_user: Places that one user may hold.
        lasts_s: Seconds after which a place is free again even if it was not given back: where a runtime may end a
            request without running its cleanup, as a Worker does, a place would otherwise be lost with each.
        clock: Seconds, from a clock that never goes backwards.
    """

    def __init__(
        self, total: int, *, per_user: int, lasts_s: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._per_user = per_user
        self._lasts_s = lasts_s
        self._clock = clock
        self._places: dict[object, tuple[str, float]] = {}  # user and end, in the order of their ends
        self._held: Counter[str] = Counter()

    def has_room(self, user_id: str) -> bool:
        """Whether the user may take a place."""
        self._end_places()
        free = self._total - len(self._places)
        held = self._held[user_id]
        return free > 0 and held < self._per_user and (held == 0 or 2 * held <= free)

    def is_full(self) -> bool:
        """Whether no place is free for anybody."""
        self._end_places()
        return len(self._places) >= self._total

    def held_by(self, user_id: str) -> int:
        """Return how many places the user holds."""
        return self._held[user_id]

    def take(self, user_id: str) -> object:
        """Take a place, and return it."""
        place = object()
        self._places[place] = (user_id, self._clock() + self._lasts_s)
        self._held[user_id] += 1
        return place

    def give_back(self, place: object) -> None:
        """Give a place back; nothing happens if its time was over."""
        if place not in self._places:
            return
        user_id, _ = self._places.pop(place)
        self._held[user_id] -= 1
        if self._held[user_id] <= 0:
            del self._held[user_id]

    def _end_places(self) -> None:
        now = self._clock()
        while self._places and (oldest := next(iter(self._places.items())))[1][1] <= now:
            self.give_back(oldest[0])


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
        shares: Counts the blocks that run.
        wait_s: Seconds that a caller waits for its turn; with 0 it never waits for another caller.
        name: What is limited, for the error message, such as ``uploads``.
        patience_s: Seconds that the only block of a user has at least.
    """

    def __init__(self, shares: UserShares, *, wait_s: float, name: str, patience_s: float = 5.0) -> None:
        self._wait_s = wait_s
        self._name = name
        self._patience_s = patience_s
        self._shares = shares
        self._running: set[Slot] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncGenerator[Slot, None]:
        """Run the ``async with`` block within the limits.

        Raises:
            UnavailableError: The limits left no room for the user within the waiting time.
        """
        if self._wait_s > 0 and not self._shares.has_room(user_id):
            await self._wait_for_room(user_id)
        if not self._shares.has_room(user_id):
            raise UnavailableError(f"too many {self._name} at the same time; try again", retry_after=2)
        place = self._shares.take(user_id)
        slot = Slot(user_id)
        self._running.add(slot)
        try:
            yield slot
        finally:
            self._running.discard(slot)
            self._shares.give_back(place)
            async with self._changed:
                self._changed.notify_all()

    async def _wait_for_room(self, user_id: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s), self._changed:
                if self._shares.is_full() and not self._shares.held_by(user_id):
                    self._make_room()
                await self._changed.wait_for(lambda: self._shares.has_room(user_id))

    def _make_room(self) -> None:
        giving_way = [slot for slot in self._running if slot.gives_way]
        if not giving_way:
            return
        slot = min(giving_way, key=lambda slot: (-self._shares.held_by(slot.user_id), slot.since))
        if self._shares.held_by(slot.user_id) > 1 or time.monotonic() - slot.since >= self._patience_s:
            slot.end()

"""Shares of users in what is limited."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from s3seg.edge.concurrency import ConcurrencyLimiter, UserShares
from s3seg.errors import UnavailableError

pytestmark = pytest.mark.anyio


def take_all(shares: UserShares, user_id: str) -> int:
    """Take places for a user until there is no more; returns how many."""
    taken = 0
    while shares.has_room(user_id):
        shares.take(user_id)
        taken += 1
    return taken


@pytest.mark.parametrize(("total", "per_user"), [(32, 8), (500, 50), (4, 8), (16, 2)])
def test_a_few_greedy_users_leave_room_for_others(total, per_user):
    shares = UserShares(total, per_user=per_user)
    held = [take_all(shares, f"user {number}") for number in range(4)]
    assert max(held) <= per_user
    assert total < 8 or shares.has_room("another")
    assert held == sorted(held, reverse=True)


def test_all_places_can_be_held_by_enough_users():
    shares = UserShares(32, per_user=8)
    assert sum(take_all(shares, f"user {number}") for number in range(32)) == 32
    assert not shares.has_room("another")


def test_places_that_are_given_back_are_free_again():
    shares = UserShares(3, per_user=2)
    assert take_all(shares, "a") == 2
    shares.give_back("a")
    assert take_all(shares, "b") == 1
    shares.give_back("b")
    shares.give_back("a")
    assert take_all(shares, "c") == 2


class Senders:
    """Clients that send without end, each in a slot, until they have to give way."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter
        self.sending: list[str] = []
        self.ended: list[str] = []
        self.words: set[str] = set()
        self._tasks: list[asyncio.Task] = []

    async def start(self, *users: str) -> None:
        for user in users:
            self._tasks.append(asyncio.create_task(self._send(user)))
            await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            while len(self.sending) < len(users):
                await asyncio.sleep(0)

    async def _send(self, user: str) -> None:
        try:
            async with self._limiter.slot(user) as slot, slot.giving_way():
                self.sending.append(user)
                await asyncio.Event().wait()
        except UnavailableError as err:
            self.ended.append(user)
            self.words.add(str(err))

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def sending(limiter: ConcurrencyLimiter, *users: str):
    senders = Senders(limiter)
    try:
        await senders.start(*users)
        yield senders
    finally:
        await senders.aclose()


def limiter_of(total: int, **options) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(total, **({"per_user": 4, "wait_s": 10.0, "name": "uploads"} | options))


async def test_when_all_places_are_taken_the_user_who_holds_most_gives_way_first():
    limiter = limiter_of(5)
    async with sending(limiter, "a", "b", "b", "c", "d") as senders, limiter.slot("ann"):
        assert senders.ended == ["b"]


async def test_the_oldest_gives_way_where_everybody_holds_one():
    limiter = limiter_of(4, patience_s=0.0)
    async with sending(limiter, *"abcd") as senders, limiter.slot("ann"):
        assert senders.ended == ["a"]
        async with limiter.slot("bea"):
            assert senders.ended == ["a", "b"]


async def test_one_that_has_just_begun_does_not_give_way():
    limiter = limiter_of(4, patience_s=1000.0, wait_s=0.05)
    async with sending(limiter, *"abcd") as senders:
        with pytest.raises(UnavailableError, match="too many uploads"):
            async with limiter.slot("ann"):
                pass
        assert senders.ended == []


async def test_nobody_gives_way_to_a_user_who_holds_a_place():
    limiter = limiter_of(4, patience_s=0.0, wait_s=0.05)
    async with sending(limiter, *"abcd") as senders:
        with pytest.raises(UnavailableError, match="too many uploads"):
            async with limiter.slot("d"):
                pass
        assert senders.ended == []


async def test_what_has_been_sent_does_not_give_way():
    limiter = limiter_of(1, patience_s=0.0, wait_s=0.05)
    async with limiter.slot("a") as slot:
        async with slot.giving_way():
            pass
        with pytest.raises(UnavailableError, match="too many uploads"):
            async with limiter.slot("ann"):
                pass


async def test_an_error_of_the_block_is_its_own():
    with pytest.raises(TimeoutError):
        async with limiter_of(1).slot("a") as slot, slot.giving_way():
            raise TimeoutError

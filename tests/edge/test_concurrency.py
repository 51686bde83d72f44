"""Shares of users in what is limited."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from s3seg.edge.concurrency import ConcurrencyLimiter, UserShares
from s3seg.errors import UnavailableError

pytestmark = pytest.mark.anyio


def take_all(shares: UserShares, user_id: str) -> list[object]:
    """Take places for a user until there is no more, and return them."""
    taken = []
    while shares.has_room(user_id):
        taken.append(shares.take(user_id))
    return taken


@pytest.mark.parametrize(("total", "per_user"), [(32, 8), (500, 50), (4, 8), (16, 2)])
def test_a_few_greedy_users_leave_room_for_others(total, per_user):
    shares = UserShares(total, per_user=per_user)
    held = [len(take_all(shares, f"user {number}")) for number in range(4)]
    assert max(held) <= per_user
    assert total < 8 or shares.has_room("another")
    assert held == sorted(held, reverse=True)


def test_all_places_can_be_held_by_enough_users():
    shares = UserShares(32, per_user=8)
    assert sum(len(take_all(shares, f"user {number}")) for number in range(32)) == 32
    assert not shares.has_room("another")


def test_places_that_are_given_back_are_free_again():
    shares = UserShares(3, per_user=2)
    first, second = take_all(shares, "a")
    shares.give_back(first)
    (third,) = take_all(shares, "b")
    shares.give_back(third)
    shares.give_back(second)
    assert len(take_all(shares, "c")) == 2


def test_a_place_that_is_not_given_back_is_free_after_its_time():
    now = [0.0]
    shares = UserShares(2, per_user=2, lasts_s=60, clock=lambda: now[0])
    lost = shares.take("a")
    now[0] = 30
    kept = shares.take("a")
    now[0] = 59
    assert not shares.has_room("b")
    now[0] = 60
    assert len(take_all(shares, "b")) == 1
    shares.give_back(lost)
    assert not shares.has_room("b")
    shares.give_back(kept)
    assert shares.has_room("c")


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
    return ConcurrencyLimiter(UserShares(total, per_user=4), **({"wait_s": 10.0, "name": "uploads"} | options))


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


async def test_without_a_wait_a_caller_is_refused_at_once_and_counts_are_shared():
    shares = UserShares(1, per_user=1)
    first, second = (ConcurrencyLimiter(shares, wait_s=0, name="uploads") for _ in range(2))
    async with first.slot("a"):
        refused = second.slot("b").__aenter__()
        with pytest.raises(UnavailableError, match="too many uploads"):
            refused.send(None)  # without the event loop: it waits for nothing
    async with second.slot("b"):
        pass

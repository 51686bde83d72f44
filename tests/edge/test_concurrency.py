"""Shares of users in what is limited."""

from __future__ import annotations

import pytest

from s3seg.edge.concurrency import UserShares


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

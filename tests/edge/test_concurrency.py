"""Shares of users in what is limited."""

from __future__ import annotations

import pytest

from s3seg.edge.concurrency import UserShares


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

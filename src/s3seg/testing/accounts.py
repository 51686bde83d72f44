"""What every `Accounts` must do for operators."""

from __future__ import annotations

import asyncio

import pytest

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import Tier
from s3seg.testing.world import AsyncSuite, TaskWorld, outcome_for


class AccountsSuite(AsyncSuite):
    """Give a fixture ``world``: a new `TaskWorld`."""

    @pytest.fixture
    def world(self) -> TaskWorld:
        """The installation under test."""
        raise NotImplementedError

    async def test_an_account_is_made_once_and_welcomed_once(self, world: TaskWorld) -> None:
        user = await world.new_identity(tier=Tier.FREE)
        accounts = await asyncio.gather(*(world.accounts.ensure(user.user_id) for _ in range(6)))
        assert len(set(accounts)) == 1
        assert await world.store.account(user) == accounts[0]
        assert await world.credits(user) == accounts[0].credits

    async def test_an_operator_moves_credits_and_tiers(self, world: TaskWorld) -> None:
        user = await world.user(tier=Tier.FREE, credits=5)
        assert (await world.accounts.adjust(user.user_id, 100)).credits == 105
        assert (await world.accounts.ensure(user.user_id, tier=Tier.PRO)).tier == Tier.PRO
        assert (await world.accounts.ensure(user.user_id)).tier == Tier.PRO
        account = await world.store.account(user)
        assert (account.tier, account.credits) == (Tier.PRO, 105)
        assert await world.credits(user) == 105

    async def test_the_accounts_tier_counts_and_not_the_tokens(self, world: TaskWorld) -> None:
        user = await world.user(tier=Tier.ENTERPRISE)
        await world.accounts.ensure(user.user_id, tier=Tier.FREE)
        assert (await world.store.account(user)).tier == Tier.FREE

    async def test_an_account_never_goes_below_zero(self, world: TaskWorld) -> None:
        user = await world.user(credits=5)
        with pytest.raises(InvalidRequestError):
            await world.accounts.adjust(user.user_id, -6)
        assert (await world.accounts.adjust(user.user_id, -5)).credits == 0
        assert await world.credits(user) == 0

    async def test_adjustments_at_once_all_count_and_none_overdraws(self, world: TaskWorld) -> None:
        user = await world.user(credits=10)
        answers = await asyncio.gather(
            *(world.accounts.adjust(user.user_id, -3) for _ in range(8)), return_exceptions=True
        )
        assert sum(isinstance(answer, InvalidRequestError) for answer in answers) == 5
        assert await world.credits(user) == 1

    async def test_the_ledger_tells_every_movement_in_order(self, world: TaskWorld) -> None:
        user = await world.user(credits=10)
        before = len(await world.accounts.ledger(user.user_id))
        task = await world.submit(user, prompts=("a", "b"))
        await world.accounts.adjust(user.user_id, 4)
        await world.store.delete_task(user, task.task_id)
        new = (await world.accounts.ledger(user.user_id))[before:]
        assert [(row.delta, row.reason, row.task_id) for row in new] == [
            (-2, "segment", task.task_id),
            (4, "adjust", None),
            (2, "refund", task.task_id),
        ]
        assert all(row.user_id == user.user_id and row.created_at.utcoffset() is not None for row in new)

    async def test_what_rows_name_is_referenced(self, world: TaskWorld) -> None:
        user = await world.user()
        image = await world.image(user)
        task = await world.submit(user, image=image)
        outcome, never = outcome_for(task), outcome_for(task)
        await world.queue.finish(await world.claim(task), outcome)
        asked = [image.object_key, *outcome.object_keys, *never.object_keys, "users/x.png"]
        assert await world.accounts.referenced(asked) == {image.object_key, *outcome.object_keys}
        assert await world.accounts.referenced([]) == set()

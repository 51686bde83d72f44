"""Test suite for `Accounts`."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import Tier
from s3seg.testing.harness import AsyncSuite, TaskHarness, outcome_for


class AccountsSuite(AsyncSuite):
    """Tests for `Accounts`. Override the fixture ``harness`` to return a new `TaskHarness`."""

    @pytest.fixture
    def harness(self) -> TaskHarness:
        """Return the adapters to test."""
        raise NotImplementedError

    async def test_an_account_is_created_and_gets_its_credits_once(self, harness: TaskHarness) -> None:
        user = await harness.new_identity(tier=Tier.FREE)
        accounts = await asyncio.gather(*(harness.accounts.ensure(user.user_id) for _ in range(6)))
        assert len(set(accounts)) == 1
        assert await harness.store.account(user) == accounts[0]
        assert await harness.credits(user) == accounts[0].credits

    async def test_an_operator_changes_credits_and_tiers(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=5)
        assert (await harness.accounts.adjust(user.user_id, 100)).credits == 105
        assert (await harness.accounts.ensure(user.user_id, tier=Tier.PRO)).tier == Tier.PRO
        assert (await harness.accounts.ensure(user.user_id)).tier == Tier.PRO
        account = await harness.store.account(user)
        assert (account.tier, account.credits) == (Tier.PRO, 105)
        assert await harness.credits(user) == 105

    async def test_the_tier_of_the_account_takes_precedence_over_that_of_the_token(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.ENTERPRISE)
        await harness.accounts.ensure(user.user_id, tier=Tier.FREE)
        assert (await harness.store.account(user)).tier == Tier.FREE

    async def test_a_balance_never_becomes_negative(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=5)
        with pytest.raises(InvalidRequestError):
            await harness.accounts.adjust(user.user_id, -6)
        assert (await harness.accounts.adjust(user.user_id, -5)).credits == 0
        assert await harness.credits(user) == 0

    async def test_concurrent_adjustments_all_count_and_none_overdraws(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=10)
        answers = await asyncio.gather(
            *(harness.accounts.adjust(user.user_id, -3) for _ in range(8)), return_exceptions=True
        )
        assert sum(isinstance(answer, InvalidRequestError) for answer in answers) == 5
        assert await harness.credits(user) == 1

    async def test_the_ledger_lists_every_change_in_order(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=10)
        before = len(await harness.accounts.ledger(user.user_id))
        task = await harness.submit(user, prompts=("a", "b"))
        await harness.accounts.adjust(user.user_id, 4)
        await harness.store.delete_task(user, task.task_id)
        new = (await harness.accounts.ledger(user.user_id))[before:]
        assert [(row.delta, row.reason, row.task_id) for row in new] == [
            (-2, "segment", task.task_id),
            (4, "adjust", None),
            (2, "refund", task.task_id),
        ]
        assert all(row.user_id == user.user_id and row.created_at.utcoffset() is not None for row in new)

    async def test_objects_of_images_and_results_are_referenced(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        task = await harness.submit(user, image=image)
        outcome, never = outcome_for(task), outcome_for(task)
        await harness.queue.finish(await harness.claim(task), outcome)
        asked = [image.object_key, *outcome.object_keys, *never.object_keys, "users/x.png"]
        assert await harness.accounts.referenced(asked) == {image.object_key, *outcome.object_keys}
        assert await harness.accounts.referenced([]) == set()

    async def test_a_recurring_job_is_begun_by_one_caller_until_it_is_due_again(self, harness: TaskHarness) -> None:
        name = f"job-{uuid.uuid4()}"
        begun = await asyncio.gather(*(harness.accounts.begin_job(name, every_s=60) for _ in range(6)))
        assert sorted(begun) == [False] * 5 + [True]
        assert await harness.accounts.begin_job(f"other-{name}", every_s=60)
        await harness.pass_time(55)
        assert not await harness.accounts.begin_job(name, every_s=60)
        await harness.pass_time(6)
        assert await harness.accounts.begin_job(name, every_s=60)
        await harness.pass_time(-3600)  # a clock that was set back does not stop a job for an hour
        assert await harness.accounts.begin_job(name, every_s=60)
        assert not await harness.accounts.begin_job(name, every_s=60)

    async def test_only_users_with_an_account_are_known(self, harness: TaskHarness) -> None:
        user, never = await harness.user(), str(uuid.uuid4())
        assert await harness.accounts.known_users([user.user_id, never, "x"]) == {user.user_id}
        assert await harness.accounts.known_users([]) == frozenset()

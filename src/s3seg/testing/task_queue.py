"""What every `TaskQueue` must do for its workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from s3seg.errors import LeaseLostError, NotFoundError
from s3seg.tasks.model import Failure, Lease, Task, TaskStatus
from s3seg.testing.task_store import NOWHERE
from s3seg.testing.world import AsyncSuite, TaskWorld, outcome_for

FAILURE = Failure(code="INFERENCE_FAILED", message="out of memory")


class TaskQueueSuite(AsyncSuite):
    """Give a fixture ``world``: a new `TaskWorld`."""

    @pytest.fixture
    def world(self) -> TaskWorld:
        """The installation under test."""
        raise NotImplementedError

    @staticmethod
    async def status(world: TaskWorld, task: Task) -> TaskStatus:
        """Where the task stands now."""
        return (await world.queue.get_task(task.task_id)).status

    @staticmethod
    async def assert_lost(world: TaskWorld, task: Task, lease: Lease) -> None:
        """A lease that is no longer current changes nothing."""
        try:
            before: Task | None = await world.queue.get_task(task.task_id)
        except NotFoundError:
            before = None
        with pytest.raises(LeaseLostError):
            await world.queue.renew(lease, lease_s=30)
        with pytest.raises(LeaseLostError):
            await world.queue.finish(lease, outcome_for(task))
        with pytest.raises(LeaseLostError):
            await world.queue.fail(lease, FAILURE)
        with pytest.raises(LeaseLostError):
            await world.queue.fail(lease, FAILURE, retry_after_s=0)
        await world.queue.release(lease)
        if before is not None:
            assert await world.queue.get_task(task.task_id) == before

    # --- claiming

    async def test_a_claimed_task_is_processing_under_a_lease(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        claim = await world.queue.claim("w", task.task_id, lease_s=30)
        assert claim is not None
        assert claim.task.status == TaskStatus.PROCESSING
        assert (claim.lease.task_id, claim.lease.worker, claim.lease.attempt) == (task.task_id, "w", 1)
        assert (claim.task.prompts, claim.task.source_image_url) == (task.prompts, task.source_image_url)
        assert await self.status(world, task) == TaskStatus.PROCESSING

    async def test_a_held_task_cannot_be_claimed(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        await world.claim(task)
        assert await world.queue.claim("other", task.task_id, lease_s=30) is None
        assert await world.queue.claim_batch("other", limit=5, lease_s=30) == []

    async def test_an_expired_lease_can_be_claimed_again(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        stale = await world.claim(task, lease_s=30)
        await world.pass_time(31)
        fresh = await world.claim(task, worker="other", lease_s=30)
        assert (fresh.attempt, fresh.worker) == (2, "other")
        await self.assert_lost(world, task, stale)
        done = await world.queue.finish(fresh, outcome_for(task))
        assert done.status == TaskStatus.DONE

    async def test_what_is_not_there_cannot_be_claimed(self, world: TaskWorld) -> None:
        for task_id in NOWHERE:
            assert await world.queue.claim("w", task_id, lease_s=30) is None
            with pytest.raises(NotFoundError):
                await world.queue.get_task(task_id)

    async def test_a_batch_takes_the_oldest_first(self, world: TaskWorld) -> None:
        user = await world.user()
        tasks = []
        for _ in range(5):
            tasks.append(await world.submit(user))
            await world.pass_time(0.01)
        first = await world.queue.claim_batch("w", limit=2, lease_s=30)
        rest = await world.queue.claim_batch("w", limit=10, lease_s=30)
        assert [claim.task.task_id for claim in [*first, *rest]] == [task.task_id for task in tasks]
        assert await world.queue.claim_batch("w", limit=10, lease_s=30) == []

    async def test_workers_at_once_never_share_a_task(self, world: TaskWorld) -> None:
        user = await world.user(credits=40)
        image = await world.image(user)
        for _ in range(30):
            await world.submit(user, image=image)
        batches = await asyncio.gather(*(world.queue.claim_batch(f"w{n}", limit=7, lease_s=30) for n in range(8)))
        claimed = [claim.task.task_id for batch in batches for claim in batch]
        assert len(claimed) == 30
        assert len(set(claimed)) == 30

    async def test_claims_of_one_task_at_once_give_one_lease(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        claims = await asyncio.gather(*(world.queue.claim(f"w{n}", task.task_id, lease_s=30) for n in range(8)))
        assert sum(claim is not None for claim in claims) == 1

    # --- renewing, releasing

    async def test_a_renewed_lease_holds_longer(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        lease = await world.claim(task, lease_s=30)
        for _ in range(3):
            await world.pass_time(20)
            renewed = await world.queue.renew(lease, lease_s=30)
            assert renewed.attempt == lease.attempt
            assert await world.queue.claim("other", task.task_id, lease_s=30) is None
        await world.pass_time(31)
        await world.claim(task, worker="other")

    async def test_renewing_is_no_news_to_the_owner(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        lease = await world.claim(task)
        before = await world.store.get_task(user, task.task_id)
        await world.pass_time(5)
        await world.queue.renew(lease, lease_s=30)
        assert (await world.store.get_task(user, task.task_id)).updated_at == before.updated_at

    async def test_a_late_attempt_still_counts_if_nobody_took_over(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        lease = await world.claim(task, lease_s=10)
        await world.pass_time(11)
        await world.queue.renew(lease, lease_s=10)
        await world.pass_time(11)
        assert (await world.queue.finish(lease, outcome_for(task))).status == TaskStatus.DONE

    async def test_a_released_task_is_free_at_once_and_the_attempt_does_not_count(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        for round_ in range(world.rules.max_attempts * 2):
            lease = await world.claim(task)
            assert lease.attempt == round_ + 1
            await world.queue.release(lease)
            await self.assert_lost(world, task, lease)
            assert await self.status(world, task) == TaskStatus.PROCESSING
        assert await world.queue.reap() == []
        (claim,) = await world.queue.claim_batch("w", limit=1, lease_s=30)
        assert (await world.queue.finish(claim.lease, outcome_for(task))).status == TaskStatus.DONE

    # --- finishing

    async def test_a_finished_task_keeps_its_result(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user, prompts=("cat", "dog"))
        lease, outcome = await world.claim(task), outcome_for(task)
        done = await world.queue.finish(lease, outcome)
        for seen in (
            done,
            await world.queue.get_task(task.task_id),
            await world.store.get_task(user, task.task_id),
        ):
            assert seen.status == TaskStatus.DONE
            assert seen.mask_image_url == outcome.mask_image_url
            assert seen.labels == outcome.labels
            assert dict(seen.metadata) == dict(outcome.metadata)
            assert sorted(seen.object_keys) == sorted(outcome.object_keys)
            assert (seen.error_code, seen.error_message) == (None, None)
        assert await world.credits(user) == 8
        await self.assert_lost(world, task, lease)
        assert await world.queue.claim("w", task.task_id, lease_s=30) is None

    async def test_finishes_at_once_end_the_task_once(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        lease = await world.claim(task)
        outcomes = [outcome_for(task) for _ in range(6)]
        answers = await asyncio.gather(
            *(world.queue.finish(lease, outcome) for outcome in outcomes), return_exceptions=True
        )
        won = [outcome for outcome, answer in zip(outcomes, answers, strict=True) if isinstance(answer, Task)]
        assert len(won) == 1
        assert sum(isinstance(answer, LeaseLostError) for answer in answers) == 5
        assert (await world.queue.get_task(task.task_id)).mask_image_url == won[0].mask_image_url
        lost = [key for outcome in outcomes if outcome is not won[0] for key in outcome.object_keys]
        assert await world.accounts.referenced(lost) == set()

    async def test_another_workers_lease_does_not_finish_a_task(self, world: TaskWorld) -> None:
        task = await world.submit(await world.user())
        lease = await world.claim(task, worker="w")
        await self.assert_lost(world, task, replace(lease, worker="impostor"))
        await self.assert_lost(world, task, replace(lease, attempt=2))
        await self.assert_lost(world, task, replace(lease, attempt=0))

    async def test_a_cancelled_or_deleted_task_cannot_be_finished(self, world: TaskWorld) -> None:
        user = await world.user()
        cancelled, deleted = await world.submit(user), await world.submit(user)
        leases = [await world.claim(cancelled), await world.claim(deleted)]
        await world.store.cancel(user, cancelled.task_id)
        await world.store.delete_task(user, deleted.task_id)
        await self.assert_lost(world, cancelled, leases[0])
        await self.assert_lost(world, deleted, leases[1])
        assert await world.credits(user) == 10

    # --- failing

    async def test_a_failed_task_is_in_error_and_refunded(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user, prompts=("a", "b", "c"))
        lease = await world.claim(task)
        ended = await world.queue.fail(lease, FAILURE)
        assert (ended.status, ended.error_code, ended.error_message) == (
            TaskStatus.ERROR,
            FAILURE.code,
            FAILURE.message,
        )
        assert await world.credits(user) == 10
        await self.assert_lost(world, task, lease)

    async def test_a_retry_waits_and_then_may_be_claimed(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        lease = await world.claim(task)
        assert (await world.queue.fail(lease, FAILURE, retry_after_s=10)).status == TaskStatus.PROCESSING
        await self.assert_lost(world, task, lease)
        assert await world.queue.claim("w", task.task_id, lease_s=30) is None
        await world.pass_time(10.5)
        assert (await world.claim(task)).attempt == 2
        assert await world.credits(user) == 9

    async def test_the_last_attempt_that_fails_ends_the_task(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        for attempt in range(1, world.rules.max_attempts + 1):
            ended = await world.queue.fail(await world.claim(task), FAILURE, retry_after_s=0)
            last = attempt == world.rules.max_attempts
            assert ended.status == (TaskStatus.ERROR if last else TaskStatus.PROCESSING)
        assert await world.credits(user) == 10

    # --- reaping

    async def test_a_task_nobody_takes_ends_at_its_deadline(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        await world.pass_time(world.rules.deadline_s - 5)
        assert await world.queue.reap() == []
        await world.pass_time(6)
        assert await world.queue.claim("w", task.task_id, lease_s=30) is None
        assert [ended.task_id for ended in await world.queue.reap()] == [task.task_id]
        assert await world.queue.reap() == []
        ended = await world.store.get_task(user, task.task_id)
        assert (ended.status, ended.error_code) == (TaskStatus.ERROR, "INFERENCE_FAILED")
        assert ended.error_message
        assert await world.credits(user) == 10

    async def test_no_lease_outlives_the_deadline(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        lease = await world.claim(task, lease_s=3600)
        assert lease.expires_at <= task.deadline
        await world.pass_time(world.rules.deadline_s + 1)
        with pytest.raises(LeaseLostError):
            await world.queue.renew(lease, lease_s=30)
        assert len(await world.queue.reap()) == 1
        await self.assert_lost(world, task, lease)
        assert await world.credits(user) == 10

    async def test_workers_that_die_use_up_the_attempts(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        for _ in range(world.rules.max_attempts):
            assert await world.queue.reap() == []
            await world.claim(task, lease_s=30)
            await world.pass_time(31)
        assert await world.queue.claim("w", task.task_id, lease_s=30) is None
        assert await world.queue.claim_batch("w", limit=5, lease_s=30) == []
        assert len(await world.queue.reap()) == 1
        assert await self.status(world, task) == TaskStatus.ERROR
        assert await world.credits(user) == 10

    async def test_reapers_at_once_refund_once(self, world: TaskWorld) -> None:
        user = await world.user(credits=20)
        image = await world.image(user)
        for _ in range(12):
            await world.submit(user, image=image)
        await world.pass_time(world.rules.deadline_s + 1)
        batches = await asyncio.gather(*(world.queue.reap(limit=5) for _ in range(6)))
        ended = [task.task_id for batch in batches for task in batch]
        assert len(ended) == len(set(ended)) == 12
        assert await world.credits(user) == 20

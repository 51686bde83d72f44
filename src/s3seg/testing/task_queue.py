"""Test suite for `TaskQueue`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from s3seg.errors import LeaseLostError, NotFoundError
from s3seg.tasks.model import Failure, Lease, Task, TaskRequest, TaskStatus
from s3seg.tasks.visual import tile_of, visual_of_tiles
from s3seg.testing.harness import AsyncSuite, TaskHarness, outcome_for
from s3seg.testing.task_store import ABSENT_IDS

FAILURE = Failure(code="INFERENCE_FAILED", message="out of memory")


class TaskQueueSuite(AsyncSuite):
    """Tests for a `TaskQueue`. Override the fixture ``harness`` to return a new `TaskHarness`."""

    @pytest.fixture
    def harness(self) -> TaskHarness:
        """Return the adapters to test."""
        raise NotImplementedError

    @staticmethod
    async def status(harness: TaskHarness, task: Task) -> TaskStatus:
        """Return the current status of a task."""
        return (await harness.queue.get_task(task.task_id)).status

    @staticmethod
    async def assert_lost(harness: TaskHarness, task: Task, lease: Lease) -> None:
        """Check that a lease is lost, and that using it changes nothing."""
        try:
            before: Task | None = await harness.queue.get_task(task.task_id)
        except NotFoundError:
            before = None
        with pytest.raises(LeaseLostError):
            await harness.queue.renew(lease, lease_s=30)
        with pytest.raises(LeaseLostError):
            await harness.queue.finish(lease, outcome_for(task))
        with pytest.raises(LeaseLostError):
            await harness.queue.fail(lease, FAILURE)
        with pytest.raises(LeaseLostError):
            await harness.queue.fail(lease, FAILURE, retry_after_s=0)
        await harness.queue.release(lease)
        if before is not None:
            assert await harness.queue.get_task(task.task_id) == before

    # --- claiming

    async def test_a_claimed_task_is_processing_under_a_lease(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        claim = await harness.queue.claim("w", task.task_id, lease_s=30)
        assert claim is not None
        assert claim.task.status == TaskStatus.PROCESSING
        assert (claim.lease.task_id, claim.lease.worker, claim.lease.attempt) == (task.task_id, "w", 1)
        assert (claim.task.prompts, claim.task.source_image_url) == (task.prompts, task.source_image_url)
        assert await self.status(harness, task) == TaskStatus.PROCESSING

    async def test_a_held_task_cannot_be_claimed(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        await harness.claim(task)
        assert await harness.queue.claim("other", task.task_id, lease_s=30) is None
        assert await harness.queue.claim_batch("other", limit=5, lease_s=30) == []

    async def test_an_expired_lease_can_be_claimed_again(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        stale = await harness.claim(task, lease_s=30)
        await harness.pass_time(31)
        fresh = await harness.claim(task, worker="other", lease_s=30)
        assert (fresh.attempt, fresh.worker) == (2, "other")
        await self.assert_lost(harness, task, stale)
        done = await harness.queue.finish(fresh, outcome_for(task))
        assert done.status == TaskStatus.DONE

    async def test_an_absent_task_cannot_be_claimed(self, harness: TaskHarness) -> None:
        for task_id in ABSENT_IDS:
            assert await harness.queue.claim("w", task_id, lease_s=30) is None
            with pytest.raises(NotFoundError):
                await harness.queue.get_task(task_id)

    async def test_a_batch_takes_the_oldest_first(self, harness: TaskHarness) -> None:
        user = await harness.user()
        tasks = []
        for _ in range(5):
            tasks.append(await harness.submit(user))
            await harness.pass_time(0.01)
        first = await harness.queue.claim_batch("w", limit=2, lease_s=30)
        rest = await harness.queue.claim_batch("w", limit=10, lease_s=30)
        assert [claim.task.task_id for claim in [*first, *rest]] == [task.task_id for task in tasks]
        assert await harness.queue.claim_batch("w", limit=10, lease_s=30) == []

    async def test_a_batch_without_tiles_leaves_them_to_later_claims(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        plain, tiled = TaskRequest(image_url=image.image_url, prompts=("cat",)), visual_of_tiles(400)
        tasks = []
        for request in (replace(plain, visual=tiled), plain, replace(plain, visual=visual_of_tiles("auto")), plain):
            tasks.append((await harness.store.submit(user, request)).task)
            await harness.pass_time(0.01)
        assert [tile_of(task.visual) for task in tasks] == [400, None, "auto", None]
        expired = await harness.queue.claim("gone", tasks[0].task_id, lease_s=0.2)
        assert expired is not None
        await harness.pass_time(0.3)
        small = await harness.queue.claim_batch("w", limit=10, lease_s=30, with_tiles=False)
        assert [claim.task.task_id for claim in small] == [tasks[1].task_id, tasks[3].task_id]
        assert await harness.queue.claim_batch("w", limit=10, lease_s=30, with_tiles=False) == []
        rest = await harness.queue.claim_batch("w", limit=10, lease_s=30)
        assert [(claim.task.task_id, tile_of(claim.task.visual)) for claim in rest] == [
            (tasks[0].task_id, 400),
            (tasks[2].task_id, "auto"),
        ]

    async def test_concurrent_workers_never_share_a_task(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=40)
        image = await harness.image(user)
        for _ in range(30):
            await harness.submit(user, image=image)
        batches = await asyncio.gather(*(harness.queue.claim_batch(f"w{n}", limit=7, lease_s=30) for n in range(8)))
        claimed = [claim.task.task_id for batch in batches for claim in batch]
        assert len(claimed) == 30
        assert len(set(claimed)) == 30

    async def test_concurrent_claims_of_one_task_give_one_lease(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        claims = await asyncio.gather(*(harness.queue.claim(f"w{n}", task.task_id, lease_s=30) for n in range(8)))
        assert sum(claim is not None for claim in claims) == 1

    # --- renewing, releasing

    async def test_a_renewed_lease_lasts_longer(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        lease = await harness.claim(task, lease_s=30)
        for _ in range(3):
            await harness.pass_time(20)
            renewed = await harness.queue.renew(lease, lease_s=30)
            assert renewed.attempt == lease.attempt
            assert await harness.queue.claim("other", task.task_id, lease_s=30) is None
        await harness.pass_time(31)
        await harness.claim(task, worker="other")

    async def test_renewing_does_not_change_updated_at(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        lease = await harness.claim(task)
        before = await harness.store.get_task(user, task.task_id)
        await harness.pass_time(5)
        await harness.queue.renew(lease, lease_s=30)
        assert (await harness.store.get_task(user, task.task_id)).updated_at == before.updated_at

    async def test_a_late_attempt_can_finish_if_no_other_worker_claimed_the_task(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        lease = await harness.claim(task, lease_s=10)
        await harness.pass_time(11)
        await harness.queue.renew(lease, lease_s=10)
        await harness.pass_time(11)
        assert (await harness.queue.finish(lease, outcome_for(task))).status == TaskStatus.DONE

    async def test_a_released_task_can_be_claimed_at_once_and_does_not_count(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        for round_ in range(harness.rules.max_attempts * 2):
            lease = await harness.claim(task)
            assert lease.attempt == round_ + 1
            await harness.queue.release(lease)
            await self.assert_lost(harness, task, lease)
            assert await self.status(harness, task) == TaskStatus.PROCESSING
        assert await harness.queue.reap() == []
        (claim,) = await harness.queue.claim_batch("w", limit=1, lease_s=30)
        assert (await harness.queue.finish(claim.lease, outcome_for(task))).status == TaskStatus.DONE

    # --- finishing

    async def test_a_finished_task_keeps_its_result(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user, prompts=("cat", "dog"))
        lease, outcome = await harness.claim(task), outcome_for(task)
        done = await harness.queue.finish(lease, outcome)
        for seen in (
            done,
            await harness.queue.get_task(task.task_id),
            await harness.store.get_task(user, task.task_id),
        ):
            assert seen.status == TaskStatus.DONE
            assert seen.mask_image_url == outcome.mask_image_url
            assert seen.labels == outcome.labels
            assert dict(seen.metadata) == dict(outcome.metadata)
            assert sorted(seen.object_keys) == sorted(outcome.object_keys)
            assert (seen.error_code, seen.error_message) == (None, None)
        assert await harness.credits(user) == 8
        await self.assert_lost(harness, task, lease)
        assert await harness.queue.claim("w", task.task_id, lease_s=30) is None

    async def test_concurrent_finishes_end_the_task_once(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        lease = await harness.claim(task)
        outcomes = [outcome_for(task) for _ in range(6)]
        answers = await asyncio.gather(
            *(harness.queue.finish(lease, outcome) for outcome in outcomes), return_exceptions=True
        )
        won = [outcome for outcome, answer in zip(outcomes, answers, strict=True) if isinstance(answer, Task)]
        assert len(won) == 1
        assert sum(isinstance(answer, LeaseLostError) for answer in answers) == 5
        assert (await harness.queue.get_task(task.task_id)).mask_image_url == won[0].mask_image_url
        lost = [key for outcome in outcomes if outcome is not won[0] for key in outcome.object_keys]
        assert await harness.accounts.referenced(lost) == set()

    async def test_the_lease_of_another_worker_does_not_finish_a_task(self, harness: TaskHarness) -> None:
        task = await harness.submit(await harness.user())
        lease = await harness.claim(task, worker="w")
        await self.assert_lost(harness, task, replace(lease, worker="impostor"))
        await self.assert_lost(harness, task, replace(lease, attempt=2))
        await self.assert_lost(harness, task, replace(lease, attempt=0))

    async def test_a_cancelled_or_deleted_task_cannot_be_finished(self, harness: TaskHarness) -> None:
        user = await harness.user()
        cancelled, deleted = await harness.submit(user), await harness.submit(user)
        leases = [await harness.claim(cancelled), await harness.claim(deleted)]
        await harness.store.cancel(user, cancelled.task_id)
        await harness.store.delete_task(user, deleted.task_id)
        await self.assert_lost(harness, cancelled, leases[0])
        await self.assert_lost(harness, deleted, leases[1])
        assert await harness.credits(user) == 10

    # --- failing

    async def test_a_failed_task_is_in_error_and_refunded(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user, prompts=("a", "b", "c"))
        lease = await harness.claim(task)
        ended = await harness.queue.fail(lease, FAILURE)
        assert (ended.status, ended.error_code, ended.error_message) == (
            TaskStatus.ERROR,
            FAILURE.code,
            FAILURE.message,
        )
        assert await harness.credits(user) == 10
        await self.assert_lost(harness, task, lease)

    async def test_a_retry_can_be_claimed_after_its_delay(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        lease = await harness.claim(task)
        assert (await harness.queue.fail(lease, FAILURE, retry_after_s=10)).status == TaskStatus.PROCESSING
        await self.assert_lost(harness, task, lease)
        assert await harness.queue.claim("w", task.task_id, lease_s=30) is None
        await harness.pass_time(10.5)
        assert (await harness.claim(task)).attempt == 2
        assert await harness.credits(user) == 9

    async def test_the_last_failed_attempt_ends_the_task(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        for attempt in range(1, harness.rules.max_attempts + 1):
            ended = await harness.queue.fail(await harness.claim(task), FAILURE, retry_after_s=0)
            last = attempt == harness.rules.max_attempts
            assert ended.status == (TaskStatus.ERROR if last else TaskStatus.PROCESSING)
        assert await harness.credits(user) == 10

    # --- reaping

    async def test_a_task_that_is_never_claimed_ends_at_its_deadline(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        await harness.pass_time(harness.rules.deadline_s - 5)
        assert await harness.queue.reap() == []
        await harness.pass_time(6)
        assert await harness.queue.claim("w", task.task_id, lease_s=30) is None
        assert [ended.task_id for ended in await harness.queue.reap()] == [task.task_id]
        assert await harness.queue.reap() == []
        ended = await harness.store.get_task(user, task.task_id)
        assert (ended.status, ended.error_code) == (TaskStatus.ERROR, "INFERENCE_FAILED")
        assert ended.error_message
        assert await harness.credits(user) == 10

    async def test_a_lease_ends_at_the_deadline(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        lease = await harness.claim(task, lease_s=3600)
        assert lease.expires_at <= task.deadline
        await harness.pass_time(harness.rules.deadline_s + 1)
        with pytest.raises(LeaseLostError):
            await harness.queue.renew(lease, lease_s=30)
        assert len(await harness.queue.reap()) == 1
        await self.assert_lost(harness, task, lease)
        assert await harness.credits(user) == 10

    async def test_crashed_workers_use_up_the_attempts(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        for _ in range(harness.rules.max_attempts):
            assert await harness.queue.reap() == []
            await harness.claim(task, lease_s=30)
            await harness.pass_time(31)
        assert await harness.queue.claim("w", task.task_id, lease_s=30) is None
        assert await harness.queue.claim_batch("w", limit=5, lease_s=30) == []
        assert len(await harness.queue.reap()) == 1
        assert await self.status(harness, task) == TaskStatus.ERROR
        assert await harness.credits(user) == 10

    async def test_concurrent_reapers_refund_once(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=20)
        image = await harness.image(user)
        for _ in range(12):
            await harness.submit(user, image=image)
        await harness.pass_time(harness.rules.deadline_s + 1)
        batches = await asyncio.gather(*(harness.queue.reap(limit=5) for _ in range(6)))
        ended = [task.task_id for batch in batches for task in batch]
        assert len(ended) == len(set(ended)) == 12
        assert await harness.credits(user) == 20

    # --- the backlog

    async def test_the_backlog_tells_what_waits_and_what_runs(self, harness: TaskHarness) -> None:
        user = await harness.user()
        before = await harness.queue.backlog()
        held, waiting, retried, done = [await harness.submit(user) for _ in range(4)]
        await harness.pass_time(20)
        await harness.claim(held, worker="ann")
        await harness.queue.fail(await harness.claim(retried, worker="bob"), FAILURE, retry_after_s=30)
        await harness.queue.finish(await harness.claim(done, worker="bob"), outcome_for(done))
        backlog = await harness.queue.backlog()
        assert backlog.waiting == before.waiting + 2, "the untouched one, and the one to try again"
        assert backlog.running == before.running + 1
        assert backlog.workers == before.workers + 1, "a worker that only waits to try again is not counted"
        assert backlog.ended_recently == before.ended_recently + 1
        assert backlog.oldest_wait_s >= 20
        await harness.store.cancel(user, waiting.task_id)
        assert (await harness.queue.backlog()).waiting == before.waiting + 1
        await harness.pass_time(31)
        expired = await harness.queue.backlog()
        assert (expired.waiting, expired.running) == (before.waiting + 2, before.running), "the lease is over"

    async def test_tasks_past_their_deadline_are_no_backlog(self, harness: TaskHarness) -> None:
        await harness.submit(await harness.user())
        await harness.pass_time(harness.rules.deadline_s + 1)
        backlog = await harness.queue.backlog()
        assert (backlog.waiting, backlog.running, backlog.workers, backlog.ended_recently) == (0, 0, 0, 0)
        assert backlog.oldest_wait_s == 0

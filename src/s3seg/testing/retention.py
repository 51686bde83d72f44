"""Test suite for what ends after a time, and for accounts that are deleted, in `TaskStore` and `Accounts`."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest

from s3seg.errors import AuthInvalidError, InvalidRequestError, LeaseLostError, NotFoundError
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task, TaskRequest, TaskStatus
from s3seg.tasks.records import Cursor, Identity, StoredImage
from s3seg.tasks.retention import Collection
from s3seg.testing.harness import AsyncSuite, TaskHarness, outcome_for

_NOTHING = Collection(images=0, results=0, object_keys=())


class RetentionSuite(AsyncSuite):
    """Tests for what ends after a time, and for deleted accounts.

    Override the fixture ``harness`` to return a new `TaskHarness` with `TaskHarness.set_retention`.
    """

    @pytest.fixture
    def harness(self) -> TaskHarness:
        """Return the adapters to test."""
        raise NotImplementedError

    async def test_nothing_ends_unless_somebody_wants_it_to(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        done = await _done(harness, user, image)
        assert (image.expires_at, done.expires_at, (await harness.store.account(user)).retention_s) == (None,) * 3
        await harness.pass_time(400 * 86_400)
        assert await harness.accounts.collect() == _NOTHING
        assert await harness.store.get_task(user, done.task_id) == done

    async def test_an_image_ends_after_the_time_that_its_owner_sets(self, harness: TaskHarness) -> None:
        user = await harness.user()
        kept, image = await harness.image(user), await harness.image(user, keep_s=3600)
        assert image.expires_at == image.created_at + timedelta(hours=1)
        await harness.pass_time(3590)
        assert await harness.store.get_image(user, image.image_id) == image
        assert await harness.accounts.collect() == _NOTHING
        await harness.pass_time(11)
        with pytest.raises(NotFoundError):
            await harness.store.get_image(user, image.image_id)
        with pytest.raises(NotFoundError):
            await harness.store.delete_image(user, image.image_id)
        assert await harness.store.find_image(user, image.object_key) is None
        with pytest.raises(InvalidRequestError, match="uploads"):
            await harness.submit(user, image=image)
        assert await harness.store.list_images(user) == [kept]
        assert await harness.accounts.collect() == Collection(images=1, results=0, object_keys=(image.object_key,))
        assert await harness.accounts.collect() == _NOTHING
        assert await harness.accounts.referenced([image.object_key, kept.object_key]) == {kept.object_key}

    async def test_a_result_ends_a_time_after_its_task(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        task = await harness.submit(user, image=image, keep_s=3600)
        assert (task.keep_s, task.expires_at) == (3600, None)
        await harness.pass_time(500)
        outcome = outcome_for(task)
        done = await harness.queue.finish(await harness.claim(task), outcome)
        assert done.expires_at == done.updated_at + timedelta(hours=1)
        kept = await harness.submit(user, image=image)
        await harness.pass_time(3601)
        with pytest.raises(NotFoundError):
            await harness.store.get_task(user, task.task_id)
        with pytest.raises(NotFoundError):
            await harness.store.cancel(user, task.task_id)
        with pytest.raises(NotFoundError):
            await harness.store.delete_task(user, task.task_id)
        page = await harness.store.list_tasks(user)
        assert ([one.task_id for one in page.tasks], page.total) == ([kept.task_id], 1)
        collected = await harness.accounts.collect()
        assert (collected.images, collected.results) == (0, 1)
        assert set(collected.object_keys) == set(outcome.object_keys)
        page = await harness.store.list_tasks(user)
        assert ([one.task_id for one in page.tasks], page.total) == ([kept.task_id], 1)
        assert await harness.accounts.referenced(outcome.object_keys) == set()

    async def test_a_task_that_runs_is_not_collected_and_neither_is_its_image(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user, keep_s=60)
        task = await harness.submit(user, image=image, keep_s=60)
        lease = await harness.claim(task, lease_s=600)
        await harness.pass_time(500)
        assert await harness.accounts.collect() == _NOTHING
        assert (await harness.store.get_task(user, task.task_id)).status == TaskStatus.PROCESSING
        done = await harness.queue.finish(lease, outcome_for(task))
        assert await harness.store.get_task(user, task.task_id) == done
        assert (await harness.accounts.collect()).object_keys == (image.object_key,)
        assert (await harness.store.get_task(user, task.task_id)).status == TaskStatus.DONE

    async def test_a_task_in_error_ends_too_and_is_refunded_once(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=5)
        task = await harness.submit(user, prompts=("a", "b"), keep_s=60)
        await harness.store.cancel(user, task.task_id)
        await harness.pass_time(61)
        assert (await harness.accounts.collect()).results == 1
        assert await harness.queue.reap() == []
        assert await harness.credits(user) == 5

    async def test_the_operators_time_applies_and_is_the_longest(self, harness: TaskHarness) -> None:
        await harness.set_retention(86_400)
        user = await harness.user()
        assert (await harness.store.account(user)).retention_s == 86_400
        image = await harness.image(user)
        assert image.expires_at == image.created_at + timedelta(days=1)
        assert (await harness.submit(user, image=image)).keep_s == 86_400
        assert (await harness.submit(user, image=image, keep_s=86_400)).keep_s == 86_400
        for seconds in (59, 86_401):
            with pytest.raises(InvalidRequestError, match=f"from 60 to 86400 seconds here, got {seconds}"):
                await harness.submit(user, image=image, keep_s=seconds)
            with pytest.raises(InvalidRequestError, match=f"from 60 to 86400 seconds here, got {seconds}"):
                await harness.image(user, keep_s=seconds)
        assert await harness.credits(user) == 8

    async def test_an_idempotency_key_is_free_once_its_task_has_ended(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        first = await _done(harness, user, image, key="k", keep_s=60)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k", keep_s=60)
        assert await harness.store.find_repeat(user, request) == first
        with pytest.raises(InvalidRequestError):
            await harness.submit(user, image=image, key="k", keep_s=90)
        await harness.pass_time(61)
        assert await harness.store.find_repeat(user, request) is None
        second = await harness.store.submit(user, request)
        assert second.created
        assert (await harness.accounts.collect()).results == 1
        assert (await harness.store.submit(user, request)).task == second.task

    async def test_others_are_untouched(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        image = await harness.image(other)
        kept = await _done(harness, other, image)
        ended = await _done(harness, user, await harness.image(user, keep_s=60), keep_s=60)
        await harness.pass_time(61)
        collected = await harness.accounts.collect()
        assert (collected.images, collected.results) == (1, 1)
        assert set(ended.object_keys) < set(collected.object_keys)
        await harness.accounts.close(user.user_id)
        await harness.accounts.collect()
        assert await harness.store.get_task(other, kept.task_id) == kept
        assert await harness.store.get_image(other, image.image_id) == image
        assert await harness.credits(other) == 9

    async def test_concurrent_collectors_share_the_work(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=20)
        image = await harness.image(user)
        done = [await _done(harness, user, image, keep_s=60) for _ in range(12)]
        await harness.pass_time(61)
        batches = await asyncio.gather(*(harness.accounts.collect(limit=5) for _ in range(4)))
        while (more := await harness.accounts.collect(limit=5)) != _NOTHING:
            batches.append(more)
        keys = [key for batch in batches for key in batch.object_keys]
        assert sum(batch.results for batch in batches) == 12
        assert sorted(keys) == sorted(key for task in done for key in task.object_keys)

    async def test_images_are_listed_in_pages_newest_first(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        await harness.image(other)
        images = []
        for _ in range(5):
            images.append(await harness.image(user))
            await harness.pass_time(1)
        seen: list[StoredImage] = []
        cursor = None
        while page := await harness.store.list_images(user, limit=2, after=cursor):
            seen += page
            cursor = Cursor(created_at=page[-1].created_at, item_id=page[-1].image_id)
        assert seen == images[::-1]

    async def test_the_credit_history_is_the_ledger_in_pages(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        await harness.submit(other)
        for number in range(4):
            await harness.pass_time(1)
            await harness.accounts.adjust(user.user_id, number + 1)
        ledger = list(await harness.accounts.ledger(user.user_id))
        pages = [await harness.store.credit_history(user, limit=2, offset=offset) for offset in (0, 2, 4, 6, 8)]
        assert [entry for page in pages for entry in page] == ledger

    async def test_a_deleted_account_is_refused_and_emptied(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=10)
        project = await harness.store.create_project(user, "p")
        image = await harness.image(user, project_id=project.project_id)
        done = await _done(harness, user, image)
        running = await harness.submit(user, image=image, prompts=("a", "b"))
        lease = await harness.claim(running)
        await harness.store.create_concept(user, "c", {})
        webhook = await harness.webhooks.create_webhook(user, "https://example.com/hook")
        assert webhook.secret
        await harness.queue.finish(await harness.claim(await harness.submit(user, image=image)), outcome_for(done))

        closed_at = await harness.store.close_account(user)
        await harness.pass_time(5)
        assert await harness.store.close_account(user) == closed_at
        assert await harness.accounts.close(user.user_id) == closed_at
        assert await harness.outbox.claim_deliveries(limit=10, lease_s=30) == []
        assert await harness.webhooks.list_webhooks(user) == []
        with pytest.raises(LeaseLostError):
            await harness.queue.finish(lease, outcome_for(running))
        for refused in (
            harness.store.account(user),
            harness.image(user),
            harness.submit(user, image=image),
            harness.store.create_project(user, "again"),
            harness.store.create_concept(user, "again", {}),
            harness.webhooks.create_webhook(user, "https://example.com/hook"),
            harness.accounts.ensure(user.user_id),
        ):
            with pytest.raises(AuthInvalidError, match="deleted"):
                await refused

        assert await harness.accounts.closed_accounts() == []  # it has rows
        keys: set[str] = set()
        while (batch := await harness.accounts.collect(limit=2)) != _NOTHING:
            keys.update(batch.object_keys)
        assert {image.object_key, *done.object_keys} < keys
        assert (await harness.store.list_tasks(user)).total == 0
        assert await harness.store.list_images(user) == []
        assert (await harness.store.list_projects(user)).total == 0
        assert await harness.store.list_concepts(user) == ()
        assert await harness.accounts.closed_accounts() == [user.user_id]
        assert await harness.accounts.known_users([user.user_id]) == {user.user_id}
        await harness.accounts.emptied(user.user_id)
        assert await harness.accounts.closed_accounts() == []
        ledger = await harness.accounts.ledger(user.user_id)
        assert sum(entry.delta for entry in ledger) == 8  # the unfinished task was refunded, once
        assert [entry.reason for entry in ledger].count("refund") == 1

    async def test_a_deleted_account_with_projects_only_is_emptied(self, harness: TaskHarness) -> None:
        user = await harness.user()
        await harness.store.create_project(user, "p")
        await harness.accounts.close(user.user_id)
        assert await harness.accounts.closed_accounts() == []
        assert await harness.accounts.collect() == _NOTHING
        assert await harness.accounts.closed_accounts() == [user.user_id]
        assert (await harness.store.list_projects(user)).total == 0

    async def test_an_account_that_never_was_can_be_deleted(self, harness: TaskHarness) -> None:
        user = await harness.new_identity(tier=Tier.FREE)
        await harness.accounts.close(user.user_id)
        with pytest.raises(AuthInvalidError):
            await harness.store.account(user)
        assert await harness.accounts.ledger(user.user_id) == []  # no welcome credits

    async def test_submits_and_a_deletion_at_once_leave_nothing_unpaid(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=10)
        image = await harness.image(user)
        answers = await asyncio.gather(
            *(harness.submit(user, image=image) for _ in range(6)),
            harness.store.close_account(user),
            return_exceptions=True,
        )
        assert all(isinstance(answer, Task | AuthInvalidError) for answer in answers[:6])
        while await harness.accounts.collect() != _NOTHING:
            pass
        assert await harness.accounts.closed_accounts() == [user.user_id]
        assert sum(entry.delta for entry in await harness.accounts.ledger(user.user_id)) == 10
        assert await harness.queue.claim_batch(f"w-{uuid.uuid4()}", limit=10, lease_s=30) == []


async def _done(
    harness: TaskHarness, user: Identity, image: StoredImage, *, key: str | None = None, keep_s: int | None = None
) -> Task:
    task = await harness.submit(user, image=image, key=key, keep_s=keep_s)
    return await harness.queue.finish(await harness.claim(task), outcome_for(task))

"""Test suite for `Webhooks` and `WebhookOutbox`."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import pytest

from s3seg.errors import InvalidRequestError, NotFoundError
from s3seg.tasks.model import Failure, Task
from s3seg.tasks.records import Identity
from s3seg.tasks.webhooks import KEPT_DAYS, MAX_WEBHOOKS, DeliveryStatus, Webhook
from s3seg.testing.harness import AsyncSuite, TaskHarness, outcome_for
from s3seg.testing.task_store import ABSENT_IDS

URL = "https://me.example/hook"


class WebhookSuite(AsyncSuite):
    """Tests for `Webhooks` and `WebhookOutbox`. Override the fixture ``harness`` to return a new `TaskHarness`."""

    @pytest.fixture
    def harness(self) -> TaskHarness:
        """Return the adapters to test."""
        raise NotImplementedError

    @staticmethod
    async def hooked(harness: TaskHarness) -> tuple[Identity, Webhook]:
        """Create a user with a webhook."""
        user = await harness.user()
        return user, await harness.webhooks.create_webhook(user, URL)

    @staticmethod
    async def end(harness: TaskHarness, user: Identity) -> Task:
        """Submit a task, and end it in ``done``."""
        task = await harness.submit(user)
        return await harness.queue.finish(await harness.claim(task), outcome_for(task))

    # --- webhooks

    async def test_a_secret_is_told_once(self, harness: TaskHarness) -> None:
        user, made = await self.hooked(harness)
        assert made.secret.startswith("whsec_")
        assert made.secret not in repr(made)
        assert made.url == URL
        (listed,) = await harness.webhooks.list_webhooks(user)
        assert (listed.webhook_id, listed.url, listed.secret) == (made.webhook_id, URL, "")
        second = await harness.webhooks.create_webhook(user, URL)
        assert second.secret != made.secret

    async def test_a_user_has_a_few_webhooks_at_most(self, harness: TaskHarness) -> None:
        user = await harness.user()
        for number in range(MAX_WEBHOOKS):
            await harness.webhooks.create_webhook(user, f"{URL}/{number}")
        with pytest.raises(InvalidRequestError, match="delete one first"):
            await harness.webhooks.create_webhook(user, URL)
        listed = await harness.webhooks.list_webhooks(user)
        assert [webhook.url for webhook in listed] == [f"{URL}/{number}" for number in range(MAX_WEBHOOKS)]
        await harness.webhooks.delete_webhook(user, listed[0].webhook_id)
        await harness.webhooks.create_webhook(user, URL)

    async def test_webhooks_of_others_are_absent(self, harness: TaskHarness) -> None:
        (user, webhook), other = await self.hooked(harness), await harness.user()
        await self.end(harness, user)
        (delivery,) = await harness.webhooks.list_deliveries(user)
        assert await harness.webhooks.list_webhooks(other) == []
        assert await harness.webhooks.list_deliveries(other) == []
        messages = set()
        for webhook_id in (*ABSENT_IDS, webhook.webhook_id):
            with pytest.raises(NotFoundError) as absent:
                await harness.webhooks.delete_webhook(other, webhook_id)
            messages.add(str(absent.value))
        assert len(messages) == 1
        for delivery_id in (*ABSENT_IDS, delivery.delivery_id):
            with pytest.raises(NotFoundError, match="no such delivery"):
                await harness.webhooks.replay(other, delivery_id)
        assert len(await harness.webhooks.list_webhooks(user)) == 1

    async def test_a_deleted_webhook_is_told_nothing_more(self, harness: TaskHarness) -> None:
        user, webhook = await self.hooked(harness)
        await self.end(harness, user)
        await harness.webhooks.delete_webhook(user, webhook.webhook_id)
        await self.end(harness, user)
        assert await harness.webhooks.list_deliveries(user) == []
        assert await harness.outbox.claim_deliveries(limit=10, lease_s=60) == []

    # --- deliveries

    async def test_every_end_of_a_task_is_told_to_each_webhook(self, harness: TaskHarness) -> None:
        user, first = await self.hooked(harness)
        second = await harness.webhooks.create_webhook(user, f"{URL}/2")
        await self.end(harness, await harness.user())  # somebody without webhooks
        done = await self.end(harness, user)
        cancelled = await harness.store.cancel(user, (await harness.submit(user)).task_id)
        failed = await harness.submit(user)
        await harness.queue.fail(await harness.claim(failed), Failure(code="INFERENCE_FAILED", message="out of memory"))
        deleted = await harness.submit(user)
        await harness.store.delete_task(user, deleted.task_id)
        reaped = await harness.submit(user)
        await harness.pass_time(harness.rules.deadline_s + 1)
        await harness.queue.reap()
        due = await harness.outbox.claim_deliveries(limit=50, lease_s=60)
        assert len({one.delivery_id for one in due}) == len(due) == 10
        assert {(one.url, one.secret) for one in due} == {(URL, first.secret), (f"{URL}/2", second.secret)}
        told = {one.payload for one in due}
        by_task = {json.loads(payload)["data"]["task_id"]: json.loads(payload) for payload in told}
        assert len(told) == len(by_task) == 5
        assert by_task[done.task_id]["type"] == "task.done"
        assert by_task[done.task_id]["data"] == {
            "task_id": done.task_id,
            "status": "done",
            "result_id": done.task_id,
        }
        assert by_task[cancelled.task_id]["data"] == {
            "task_id": cancelled.task_id,
            "status": "error",
            "error_message": "cancelled",
        }
        assert by_task[failed.task_id]["data"]["error_message"] == "out of memory"
        assert by_task[deleted.task_id]["type"] == by_task[reaped.task_id]["type"] == "task.error"
        ended_at = datetime.fromisoformat(by_task[done.task_id]["timestamp"])
        assert abs((ended_at - done.updated_at).total_seconds()) < harness.rules.deadline_s + 2

    async def test_a_task_that_goes_on_is_not_told(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        task = await harness.submit(user)
        await harness.queue.release(await harness.claim(task))
        retried = Failure(code="INFERENCE_FAILED", message="x")
        await harness.queue.fail(await harness.claim(task), retried, retry_after_s=0)
        await harness.claim(task)
        assert await harness.webhooks.list_deliveries(user) == []

    async def test_a_claimed_delivery_is_due_again_after_its_lease_with_the_same_id(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        await self.end(harness, user)
        (first,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        assert first.attempts == 1
        assert await harness.outbox.claim_deliveries(limit=5, lease_s=60) == []
        await harness.pass_time(61)
        (again,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        assert (again.delivery_id, again.payload, again.attempts) == (first.delivery_id, first.payload, 2)

    async def test_concurrent_senders_share_the_deliveries(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        for _ in range(6):
            await self.end(harness, user)
        claims = await asyncio.gather(*(harness.outbox.claim_deliveries(limit=2, lease_s=60) for _ in range(5)))
        claimed = [one.delivery_id for claim in claims for one in claim]
        assert len(claimed) == len(set(claimed))
        claimed += [one.delivery_id for one in await harness.outbox.claim_deliveries(limit=9, lease_s=60)]
        assert len(claimed) == len(set(claimed)) == 6

    async def test_what_was_received_is_not_sent_again(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        await self.end(harness, user)
        (due,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        await harness.outbox.delivered(due.delivery_id)
        await harness.outbox.not_delivered(due.delivery_id, "late", retry_after_s=1)  # of a sender that was slow
        (delivery,) = await harness.webhooks.list_deliveries(user)
        assert (delivery.status, delivery.attempts) == (DeliveryStatus.DELIVERED, 1)
        assert (delivery.next_attempt_at, delivery.last_error) == (None, None)
        await harness.pass_time(3600)
        assert await harness.outbox.claim_deliveries(limit=5, lease_s=60) == []

    async def test_what_was_not_received_is_tried_again_or_given_up(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        await self.end(harness, user)
        (due,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        await harness.outbox.not_delivered(due.delivery_id, "the answer had the status 500", retry_after_s=300)
        (delivery,) = await harness.webhooks.list_deliveries(user)
        assert (delivery.status, delivery.last_error) == (DeliveryStatus.PENDING, "the answer had the status 500")
        await harness.pass_time(200)
        assert await harness.outbox.claim_deliveries(limit=5, lease_s=60) == []
        await harness.pass_time(101)
        (again,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        await harness.outbox.not_delivered(again.delivery_id, "no answer", retry_after_s=None)
        (delivery,) = await harness.webhooks.list_deliveries(user)
        assert (delivery.status, delivery.attempts) == (DeliveryStatus.FAILED, 2)
        await harness.pass_time(3600)
        assert await harness.outbox.claim_deliveries(limit=5, lease_s=60) == []

    async def test_a_replay_is_sent_at_once_with_the_same_id(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        await self.end(harness, user)
        (due,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        await harness.outbox.not_delivered(due.delivery_id, "no answer", retry_after_s=None)
        replayed = await harness.webhooks.replay(user, due.delivery_id)
        assert (replayed.status, replayed.attempts, replayed.last_error) == (DeliveryStatus.PENDING, 0, None)
        (again,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        assert (again.delivery_id, again.payload) == (due.delivery_id, due.payload)

    async def test_deliveries_that_ended_long_ago_are_forgotten(self, harness: TaskHarness) -> None:
        user, _ = await self.hooked(harness)
        await self.end(harness, user)
        (due,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        await harness.outbox.delivered(due.delivery_id)
        await harness.pass_time(KEPT_DAYS * 86_400 + 60)
        await self.end(harness, user)
        (kept,) = await harness.outbox.claim_deliveries(limit=5, lease_s=60)
        listed = [one.delivery_id for one in await harness.webhooks.list_deliveries(user)]
        assert kept.delivery_id in listed

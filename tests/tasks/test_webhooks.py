"""The loop that sends webhooks."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from s3seg.errors import UnavailableError
from s3seg.tasks.webhook_delivery import WebhookDelivery
from s3seg.tasks.webhooks import DeliveryStatus, DueDelivery, pause_after
from s3seg.testing.harness import outcome_for
from tests.adapters.harnesses import MemoryHarness

pytestmark = pytest.mark.anyio


class Sent:
    """Fails as often as told, then receives."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.ids: list[str] = []

    async def send(self, delivery: DueDelivery) -> None:
        self.ids.append(delivery.delivery_id)
        if len(self.ids) <= self.failures:
            raise UnavailableError("the answer had the status 500")


async def ended_task(harness: MemoryHarness):
    user = await harness.user()
    await harness.webhooks.create_webhook(user, "https://me.example/hook")
    task = await harness.submit(user)
    await harness.queue.finish(await harness.claim(task), outcome_for(task))
    return user


def test_it_is_tried_for_about_a_day_and_then_given_up() -> None:
    pauses = []
    while (pause := pause_after(len(pauses) + 1)) is not None:
        pauses.append(pause)
    assert pauses == sorted(pauses)
    assert 20 * 3600 < sum(pauses) < 30 * 3600


async def test_it_is_sent_until_it_is_received() -> None:
    harness, sender = MemoryHarness(), Sent(failures=2)
    user = await ended_task(harness)
    delivery = WebhookDelivery(harness.outbox, sender)
    assert await delivery.send_due() == 1
    assert await delivery.send_due() == 0, "not before the pause is over"
    (seen,) = await harness.webhooks.list_deliveries(user)
    assert (seen.status, seen.last_error) == (DeliveryStatus.PENDING, "the answer had the status 500")
    for _ in range(3):
        await harness.pass_time(60)
        await delivery.send_due()
    (seen,) = await harness.webhooks.list_deliveries(user)
    assert (seen.status, seen.attempts) == (DeliveryStatus.DELIVERED, 3)
    assert Counter(sender.ids) == {seen.delivery_id: 3}, "always the same id"


async def test_it_is_given_up_in_the_end() -> None:
    harness, sender = MemoryHarness(), Sent(failures=1000)
    user = await ended_task(harness)
    delivery = WebhookDelivery(harness.outbox, sender)
    for _ in range(20):
        await delivery.send_due()
        await harness.pass_time(50_000)
    (seen,) = await harness.webhooks.list_deliveries(user)
    assert (seen.status, seen.attempts) == (DeliveryStatus.FAILED, 11)


async def test_one_that_cannot_be_sent_at_all_neither_stops_the_others_nor_is_tried_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness, received = MemoryHarness(), Sent()
    user, other = await ended_task(harness), await ended_task(harness)
    (broken,) = await harness.webhooks.list_deliveries(user)

    class Stumbles(Sent):
        async def send(self, delivery: DueDelivery) -> None:
            if delivery.delivery_id == broken.delivery_id:
                raise UnicodeError("label empty or too long")
            await received.send(delivery)

    delivery = WebhookDelivery(harness.outbox, Stumbles())
    for _ in range(20):
        await delivery.send_due()
        await harness.pass_time(50_000)
    (seen,) = await harness.webhooks.list_deliveries(other)
    assert seen.status == DeliveryStatus.DELIVERED
    (seen,) = await harness.webhooks.list_deliveries(user)
    assert (seen.status, seen.attempts) == (DeliveryStatus.FAILED, 11)
    assert seen.last_error == "it could not be sent"
    assert "label empty or too long" in caplog.text


async def test_a_sender_that_dies_leaves_it_to_another() -> None:
    harness, received = MemoryHarness(), Sent()
    await ended_task(harness)

    class Dies(Sent):
        async def send(self, delivery: DueDelivery) -> None:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await WebhookDelivery(harness.outbox, Dies()).send_due()
    await harness.pass_time(121)
    assert await WebhookDelivery(harness.outbox, received).send_due() == 1
    assert len(received.ids) == 1


async def test_the_loop_goes_on_after_an_error_of_the_database(caplog: pytest.LogCaptureFixture) -> None:
    harness, sender = MemoryHarness(), Sent()
    await ended_task(harness)
    claim, calls = harness.outbox.claim_deliveries, 0

    async def failing(**asked):
        nonlocal calls
        calls += 1
        if calls == 1:
            raise UnavailableError("the database is locked")
        return await claim(**asked)

    harness.outbox.claim_deliveries = failing  # type: ignore[method-assign]
    delivery = WebhookDelivery(harness.outbox, sender, idle_s=0.01)
    delivery.start()
    async with asyncio.timeout(5):
        while not sender.ids:
            await asyncio.sleep(0.01)
    await delivery.aclose()
    assert "webhooks cannot be sent now" in caplog.text

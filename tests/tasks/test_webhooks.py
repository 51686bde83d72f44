"""The loop that sends webhooks."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from s3seg.errors import UnavailableError
from s3seg.tasks.records import Identity
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


class Hangs(Sent):
    """Receives what goes to others at once; the deliveries to one address are not answered."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.hanging = 0
        self.most_hanging = 0

    async def send(self, delivery: DueDelivery) -> None:
        if delivery.url != self.url:
            return await super().send(delivery)
        self.hanging += 1
        self.most_hanging = max(self.most_hanging, self.hanging)
        try:
            await asyncio.Event().wait()
        finally:
            self.hanging -= 1


async def ended_tasks(harness: MemoryHarness, url: str, count: int) -> Identity:
    user = await harness.user(credits=count)
    await harness.webhooks.create_webhook(user, url)
    for number in range(count):
        if number % 50 == 49:  # a user may submit 60 tasks a minute
            await harness.pass_time(61)
        task = await harness.submit(user)
        await harness.queue.finish(await harness.claim(task), outcome_for(task))
    return user


async def test_a_webhook_that_does_not_answer_delays_no_other() -> None:
    harness, sender = MemoryHarness(), Hangs("https://slow.example/hook")
    slow = await ended_tasks(harness, sender.url, 100)
    await harness.pass_time(1)
    other = await ended_tasks(harness, "https://me.example/hook", 1)
    (own,) = await harness.webhooks.list_deliveries(other)
    delivery = WebhookDelivery(harness.outbox, sender, idle_s=0.01, patience_s=0.05)
    delivery.start()
    async with asyncio.timeout(10):
        while not sender.ids:
            await asyncio.sleep(0.01)
    assert sender.ids == [own.delivery_id]
    assert sender.most_hanging == 4
    await delivery.aclose()
    waiting = await harness.webhooks.list_deliveries(slow, limit=100)
    assert {one.status for one in waiting} == {DeliveryStatus.PENDING}, "none is lost"
    assert "it was not sent: it waited 0.05 seconds for others to the same webhook" in {
        one.last_error for one in waiting
    }


async def test_a_webhook_that_answers_gets_all_that_is_due_at_once() -> None:
    harness, sender = MemoryHarness(), Sent()
    user = await ended_tasks(harness, "https://me.example/hook", 16)
    assert await WebhookDelivery(harness.outbox, sender, patience_s=5).send_due() == 16
    seen = await harness.webhooks.list_deliveries(user)
    assert {(one.status, one.attempts) for one in seen} == {(DeliveryStatus.DELIVERED, 1)}
    assert len(sender.ids) == len(set(sender.ids)) == 16


async def test_what_cannot_be_recorded_is_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    harness, sender = MemoryHarness(), Sent()
    await ended_task(harness)
    delivered = harness.outbox.delivered

    async def failing(delivery_id: str) -> None:
        raise UnavailableError("the database is locked")

    delivery = WebhookDelivery(harness.outbox, sender)
    harness.outbox.delivered = failing  # type: ignore[method-assign]
    assert await delivery.send_due() == 1
    assert "it will be sent again: the database is locked" in caplog.text
    harness.outbox.delivered = delivered  # type: ignore[method-assign]
    await harness.pass_time(121)
    assert await delivery.send_due() == 1
    assert Counter(sender.ids).most_common(1)[0][1] == 2, "the same id"


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

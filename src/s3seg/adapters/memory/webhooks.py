"""Webhooks in memory."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from s3seg.adapters.memory.tables import MemoryTables
from s3seg.errors import InvalidRequestError, NotFoundError
from s3seg.tasks.records import Identity
from s3seg.tasks.webhook_payload import new_secret
from s3seg.tasks.webhooks import MAX_WEBHOOKS, Delivery, DeliveryStatus, DueDelivery, Webhook


class MemoryWebhooks:
    """`Webhooks` and `WebhookOutbox` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._t = tables

    async def create_webhook(self, caller: Identity, url: str) -> Webhook:
        """Register an address, and return it with its secret."""
        self._t.ensure(caller.user_id, caller.tier)
        if len(self._own(caller)) >= MAX_WEBHOOKS:
            raise InvalidRequestError(f"there are {MAX_WEBHOOKS} webhooks already; delete one first")
        webhook = Webhook(webhook_id=str(uuid.uuid4()), url=url, secret=new_secret(), created_at=self._t.now())
        self._t.webhooks[webhook.webhook_id] = (caller.user_id, webhook)
        return webhook

    async def list_webhooks(self, caller: Identity) -> Sequence[Webhook]:
        """Return the caller's webhooks, oldest first, without their secrets."""
        return [replace(webhook, secret="") for webhook in self._own(caller)]

    async def delete_webhook(self, caller: Identity, webhook_id: str) -> None:
        """Remove a webhook and its deliveries, or raise NotFoundError."""
        if webhook_id not in {webhook.webhook_id for webhook in self._own(caller)}:
            raise NotFoundError("no such webhook")
        del self._t.webhooks[webhook_id]
        for delivery in [one for one in self._t.deliveries.values() if one.webhook_id == webhook_id]:
            del self._t.deliveries[delivery.delivery_id]

    async def list_deliveries(self, caller: Identity, *, limit: int = 50) -> Sequence[Delivery]:
        """Return the caller's latest deliveries, newest first."""
        own = {webhook.webhook_id for webhook in self._own(caller)}
        found = [delivery for delivery in self._t.deliveries.values() if delivery.webhook_id in own]
        return sorted(found, key=lambda one: (one.created_at, one.delivery_id), reverse=True)[:limit]

    async def replay(self, caller: Identity, delivery_id: str) -> Delivery:
        """Send a delivery again, or raise NotFoundError."""
        own = {webhook.webhook_id for webhook in self._own(caller)}
        delivery = self._t.deliveries.get(delivery_id)
        if delivery is None or delivery.webhook_id not in own:
            raise NotFoundError("no such delivery")
        again = replace(
            delivery,
            status=DeliveryStatus.PENDING,
            attempts=0,
            next_attempt_at=self._t.now(),
            last_error=None,
        )
        self._t.deliveries[delivery_id] = again
        return again

    async def claim_deliveries(self, *, limit: int, lease_s: float) -> Sequence[DueDelivery]:
        """Claim up to ``limit`` deliveries that are due, oldest first."""
        now = self._t.now()
        due = [one for one in self._t.deliveries.values() if one.next_attempt_at and one.next_attempt_at <= now]
        due.sort(key=lambda one: (one.created_at, one.delivery_id))
        claimed: list[DueDelivery] = []
        for delivery in due[:limit]:
            taken = replace(delivery, attempts=delivery.attempts + 1, next_attempt_at=now + timedelta(seconds=lease_s))
            self._t.deliveries[delivery.delivery_id] = taken
            webhook = self._t.webhooks[delivery.webhook_id][1]
            claimed.append(
                DueDelivery(
                    delivery_id=taken.delivery_id,
                    url=webhook.url,
                    secret=webhook.secret,
                    payload=taken.payload,
                    attempts=taken.attempts,
                )
            )
        return claimed

    async def delivered(self, delivery_id: str) -> None:
        """Record that a delivery was received."""
        self._settle(delivery_id, status=DeliveryStatus.DELIVERED, next_attempt_at=None, last_error=None)

    async def not_delivered(self, delivery_id: str, error: str, *, retry_after_s: float | None) -> None:
        """Record why an attempt failed, and when to try again."""
        if retry_after_s is None:
            self._settle(delivery_id, status=DeliveryStatus.FAILED, next_attempt_at=None, last_error=error)
        else:
            again = self._t.now() + timedelta(seconds=retry_after_s)
            self._settle(delivery_id, next_attempt_at=again, last_error=error)

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def _own(self, caller: Identity) -> list[Webhook]:
        return [webhook for owner, webhook in self._t.webhooks.values() if owner == caller.user_id]

    def _settle(self, delivery_id: str, **changes: object) -> None:
        delivery = self._t.deliveries.get(delivery_id)
        if delivery is not None and delivery.status == DeliveryStatus.PENDING:
            self._t.deliveries[delivery_id] = replace(delivery, **changes)  # type: ignore[arg-type]

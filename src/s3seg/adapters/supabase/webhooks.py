"""Webhooks in a Supabase project: for their owners with the owner's token, for senders with the secret key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.rows import canonical_uuid, moment
from s3seg.errors import NotFoundError
from s3seg.tasks.records import Identity
from s3seg.tasks.webhook_payload import new_secret
from s3seg.tasks.webhooks import KEPT_DAYS, MAX_WEBHOOKS, Delivery, DeliveryStatus, DueDelivery, Webhook


class SupabaseWebhooks:
    """`Webhooks` in a Supabase project.

    Args:
        rest: The PostgREST API, with the publishable key.
    """

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def create_webhook(self, caller: Identity, url: str) -> Webhook:
        """Register an address, and return it with its secret."""
        secret = new_secret()
        asked = {"p_url": url, "p_secret": secret, "p_most": MAX_WEBHOOKS}
        return _webhook(await self._call(caller, "create_webhook", asked), secret=secret)

    async def list_webhooks(self, caller: Identity) -> Sequence[Webhook]:
        """Return the caller's webhooks, oldest first, without their secrets."""
        return [_webhook(row) for row in await self._call(caller, "my_webhooks", {}, safe=True)]

    async def delete_webhook(self, caller: Identity, webhook_id: str) -> None:
        """Remove a webhook and its deliveries, or raise NotFoundError."""
        known = canonical_uuid(webhook_id)
        if known is None or not await self._call(caller, "delete_webhook", {"p_webhook_id": known}):
            raise NotFoundError("no such webhook")

    async def list_deliveries(self, caller: Identity, *, limit: int = 50) -> Sequence[Delivery]:
        """Return the caller's latest deliveries, newest first."""
        return [_delivery(row) for row in await self._call(caller, "my_deliveries", {"p_limit": limit}, safe=True)]

    async def replay(self, caller: Identity, delivery_id: str) -> Delivery:
        """Send a delivery again, or raise NotFoundError."""
        found = None
        if delivery_id.isascii() and delivery_id.isprintable():
            found = await self._call(caller, "replay_delivery", {"p_delivery_id": delivery_id}, safe=True)
        if found is None:
            raise NotFoundError("no such delivery")
        return _delivery(found)

    async def check(self) -> None:
        """Check that the database responds."""
        await self._rest.info()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def _call(self, caller: Identity, function: str, arguments: dict[str, Any], *, safe: bool = False) -> Any:
        return await self._rest.call(self._rest.as_user(caller.token), function, arguments, safe=safe)


class SupabaseWebhookOutbox:
    """`WebhookOutbox` in a Supabase project.

    Args:
        rest: The PostgREST API, with the secret key.
    """

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def claim_deliveries(self, *, limit: int, lease_s: float) -> Sequence[DueDelivery]:
        """Claim up to ``limit`` deliveries that are due, oldest first."""
        asked = {"p_limit": limit, "p_lease_s": lease_s, "p_kept_days": KEPT_DAYS}
        return [DueDelivery(**row) for row in await self._call("worker_claim_deliveries", asked)]

    async def delivered(self, delivery_id: str) -> None:
        """Record that a delivery was received."""
        await self._settle(delivery_id, None, None)

    async def not_delivered(self, delivery_id: str, error: str, *, retry_after_s: float | None) -> None:
        """Record why an attempt failed, and when to try again."""
        await self._settle(delivery_id, error, retry_after_s)

    async def check(self) -> None:
        """Check that the database responds."""
        await self._rest.info()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def _settle(self, delivery_id: str, error: str | None, retry_after_s: float | None) -> None:
        asked = {"p_delivery_id": delivery_id, "p_error": error, "p_retry_after_s": retry_after_s}
        await self._call("worker_settle_delivery", asked, safe=True)

    async def _call(self, function: str, arguments: dict[str, Any], *, safe: bool = False) -> Any:
        return await self._rest.call(self._rest.as_key(), function, arguments, safe=safe)


def _webhook(row: dict[str, Any], *, secret: str = "") -> Webhook:
    return Webhook(webhook_id=row["id"], url=row["url"], secret=secret, created_at=moment(row["created_at"]))


def _delivery(row: dict[str, Any]) -> Delivery:
    again = row["next_attempt_at"]
    return Delivery(
        delivery_id=row["id"],
        webhook_id=row["webhook_id"],
        task_id=row["task_id"],
        payload=row["payload"],
        status=DeliveryStatus(row["status"]),
        attempts=row["attempts"],
        next_attempt_at=None if again is None else moment(again),
        last_error=row["last_error"],
        created_at=moment(row["created_at"]),
    )

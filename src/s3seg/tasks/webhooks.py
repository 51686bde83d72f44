"""Webhooks: users register addresses, and every task of theirs that ends is told to each of them, at least once.

A delivery is written in the transaction that ends its task, so that no end is lost, and sent later by a service that
may see all of them. Its id is the same at each attempt, by which receivers recognise repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from s3seg.tasks.ports import Part
from s3seg.tasks.records import Identity

MAX_WEBHOOKS = 5
"""Most webhooks of a user."""

MAX_URL_CHARS = 2000
"""Most characters in the address of a webhook."""

KEPT_DAYS = 7
"""Days after which a delivery that has ended is forgotten."""

_PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 36_000)  # a day in all


class DeliveryStatus(StrEnum):
    """The state of a delivery: to be sent (again), received, or given up after a day."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that is told of a user's tasks.

    Attributes:
        webhook_id: UUID.
        url: The address; https.
        secret: The key that signs deliveries, ``whsec_`` and base64; never shown in a repr. Empty where it was told
            before: it is told once.
        created_at: When it was registered.
    """

    webhook_id: str
    url: str
    secret: str = field(default="", repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one webhook.

    Attributes:
        delivery_id: Its id, the same at each attempt: ``msg_`` and 32 hex digits.
        webhook_id: Where it goes to.
        task_id: The task that ended.
        payload: The JSON text that is sent.
        status: Its state.
        attempts: How often it has been sent.
        next_attempt_at: When it is sent next; None once it has ended.
        last_error: Why the last attempt failed; None if none did.
        created_at: When the task ended.
    """

    delivery_id: str
    webhook_id: str
    task_id: str
    payload: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """A delivery that a sender has claimed, and what it needs to send it."""

    delivery_id: str
    url: str
    secret: str = field(repr=False)
    payload: str
    attempts: int


def pause_after(attempts: int) -> float | None:
    """Return the seconds until the next attempt after so many failed ones, or None to give up: after about a day."""
    return float(_PAUSES_S[attempts - 1]) if attempts <= len(_PAUSES_S) else None


class Webhooks(Part, Protocol):
    """Webhooks and deliveries, as one user sees and changes them.

    Those of another user and those that do not exist give the same error with the same message.
    """

    async def create_webhook(self, caller: Identity, url: str) -> Webhook:
        """Register an address, and return it with its secret, which is never told again.

        Raises:
            InvalidRequestError: The caller has `MAX_WEBHOOKS` already.
        """
        ...

    async def list_webhooks(self, caller: Identity) -> Sequence[Webhook]:
        """Return the caller's webhooks, oldest first, without their secrets."""
        ...

    async def delete_webhook(self, caller: Identity, webhook_id: str) -> None:
        """Remove a webhook and its deliveries.

        Raises:
            NotFoundError: The caller has no such webhook (``webhook_id`` may be any string).
        """
        ...

    async def list_deliveries(self, caller: Identity, *, limit: int = 50) -> Sequence[Delivery]:
        """Return the caller's latest deliveries, newest first; those that ended `KEPT_DAYS` ago may be gone."""
        ...

    async def replay(self, caller: Identity, delivery_id: str) -> Delivery:
        """Send a delivery again, at once and as if for the first time, with the same id; return its new state.

        Raises:
            NotFoundError: The caller has no such delivery (``delivery_id`` may be any string).
        """
        ...


class WebhookOutbox(Part, Protocol):
    """The deliveries of all users, as senders see them."""

    async def claim_deliveries(self, *, limit: int, lease_s: float) -> Sequence[DueDelivery]:
        """Claim up to ``limit`` deliveries that are due, oldest first; none is given to two senders.

        A delivery of a sender that reports nothing is due again after ``lease_s`` seconds.
        """
        ...

    async def delivered(self, delivery_id: str) -> None:
        """Record that a delivery was received. Nothing happens if it does not exist any more."""
        ...

    async def not_delivered(self, delivery_id: str, error: str, *, retry_after_s: float | None) -> None:
        """Record why an attempt failed, and when to try again; None gives the delivery up."""
        ...

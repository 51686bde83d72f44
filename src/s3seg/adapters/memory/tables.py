"""The dictionaries that task store, task queue and accounts share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from s3seg.errors import AuthInvalidError
from s3seg.tasks import state_machine
from s3seg.tasks.limits import RATE_LIMITS, RateTable, Tier
from s3seg.tasks.model import Task
from s3seg.tasks.records import Account, Concept, LedgerEntry, Project, StoredImage
from s3seg.tasks.retention import ACCOUNT_DELETED
from s3seg.tasks.state_machine import Rules
from s3seg.tasks.webhook_payload import new_delivery_id, payload_of
from s3seg.tasks.webhooks import Delivery, DeliveryStatus, Webhook


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class MemoryTables:
    """All tasks, accounts, images and projects, and the settings that apply to them.

    Attributes:
        public_base: Base URL under which stored objects are served.
        rules: Attempts and deadline of a task.
        rates: Number of actions allowed in any 60 seconds.
        welcome_credits: Credits of a new account.
        now: Returns the current time, UTC.
        clock: Returns the time in seconds, from a clock that nobody sets; for the rate limit of submits.
    """

    public_base: str = "http://127.0.0.1:8000/files"
    rules: Rules = field(default_factory=Rules)
    rates: RateTable = field(default_factory=lambda: RATE_LIMITS)
    welcome_credits: int = 10
    now: Callable[[], datetime] = _utc_now
    clock: Callable[[], float] = time.monotonic
    accounts: dict[str, Account] = field(default_factory=dict)
    ledger: list[LedgerEntry] = field(default_factory=list)
    images: dict[str, StoredImage] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    concepts: dict[str, Concept] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    jobs: dict[str, datetime] = field(default_factory=dict)
    """By name: when a recurring job was last begun."""
    webhooks: dict[str, tuple[str, Webhook]] = field(default_factory=dict)
    """By id: the owner of a webhook, and the webhook."""
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    submits: dict[str, Sequence[float]] = field(default_factory=dict)
    """By user: the times of the submits that the rate limit counts."""
    closed: dict[str, datetime] = field(default_factory=dict)
    """By user: when the account was deleted."""
    emptied: set[str] = field(default_factory=set)
    """Deleted accounts that have no stored objects any more."""
    idempotency_keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """By user and idempotency key: the fingerprint of the request, and the id of its task."""

    def ensure(self, user_id: str, tier: Tier | None) -> Account:
        """Return a user's account, and create it if it does not exist.

        Raises:
            AuthInvalidError: The account was deleted.
        """
        if user_id in self.closed:
            raise AuthInvalidError(ACCOUNT_DELETED)
        account = self.accounts.get(user_id)
        if account is None:
            self.accounts[user_id] = Account(
                user_id=user_id, tier=tier or Tier.FREE, credits=0, retention_s=self.rules.retention_s
            )
            self.book(user_id, self.welcome_credits, "grant", None)
        return self.accounts[user_id]

    def book(self, user_id: str, delta: int, reason: str, task_id: str | None) -> None:
        """Change a user's credits: add a ledger entry and update the balance."""
        if delta == 0:
            return
        account = self.accounts[user_id]
        self.ledger.append(
            LedgerEntry(user_id=user_id, delta=delta, reason=reason, task_id=task_id, created_at=self.now())
        )
        self.accounts[user_id] = replace(account, credits=account.credits + delta)

    def save(self, before: Task, after: Task) -> Task:
        """Store the new state of a task, and refund it if it entered ``error``."""
        self.tasks[after.task_id] = after
        self.book(after.user_id, state_machine.refund(before, after), "refund", after.task_id)
        if after.ended and not before.ended:
            self._tell_of_end(after)
        return after

    def forget_image(self, image_id: str) -> None:
        """Remove an image; its tasks are kept, without an image."""
        del self.images[image_id]
        for task in [task for task in self.tasks.values() if task.image_id == image_id]:
            self.tasks[task.task_id] = replace(task, image_id=None)

    def _tell_of_end(self, task: Task) -> None:
        for owner, webhook in self.webhooks.values():
            if owner == task.user_id:
                delivery = Delivery(
                    delivery_id=new_delivery_id(),
                    webhook_id=webhook.webhook_id,
                    task_id=task.task_id,
                    payload=payload_of(task),
                    status=DeliveryStatus.PENDING,
                    attempts=0,
                    next_attempt_at=task.updated_at,
                    last_error=None,
                    created_at=task.updated_at,
                )
                self.deliveries[delivery.delivery_id] = delivery

    def oldest_first(self) -> Iterator[Task]:
        """Iterate over all tasks, in the order in which they were accepted."""
        return iter(sorted(self.tasks.values(), key=lambda task: (task.created_at, task.task_id)))

"""Webhooks in an SQLite file; triggers write a delivery in the transaction that ends a task."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from typing import Any

from s3seg.adapters.sqlite import accounts, rows
from s3seg.adapters.sqlite.database import Database
from s3seg.adapters.sqlite.policy import Policy
from s3seg.errors import InvalidRequestError, NotFoundError
from s3seg.tasks.records import Identity, from_microseconds, microseconds
from s3seg.tasks.webhook_payload import new_secret
from s3seg.tasks.webhooks import KEPT_DAYS, MAX_WEBHOOKS, Delivery, DeliveryStatus, DueDelivery, Webhook

_SELECT = """
    SELECT d.delivery_id, d.webhook_id, d.task_id, d.payload, d.status, d.attempts, d.next_attempt_at, d.last_error,
           d.created_at
    FROM deliveries d JOIN webhooks w ON w.webhook_id = d.webhook_id
"""


class SqliteWebhooks:
    """`Webhooks` and `WebhookOutbox` in an SQLite file."""

    def __init__(self, database: Database, *, policy: Policy | None = None) -> None:
        self._db = database
        self._policy = policy or Policy()

    async def create_webhook(self, caller: Identity, url: str) -> Webhook:
        """Register an address, and return it with its secret."""
        now = self._policy.now()
        webhook = Webhook(webhook_id=str(uuid.uuid4()), url=url, secret=new_secret(), created_at=now)

        def work(db: sqlite3.Connection) -> Webhook:
            accounts.ensure_account(db, caller.user_id, caller.tier, policy=self._policy, now=now)
            (own,) = db.execute("SELECT count(*) FROM webhooks WHERE user_id = ?", (caller.user_id,)).fetchone()
            if own >= MAX_WEBHOOKS:
                raise InvalidRequestError(f"there are {MAX_WEBHOOKS} webhooks already; delete one first")
            values = (webhook.webhook_id, caller.user_id, url, webhook.secret, microseconds(now))
            db.execute("INSERT INTO webhooks VALUES (?, ?, ?, ?, ?)", values)
            return webhook

        return await self._db.write(work)

    async def list_webhooks(self, caller: Identity) -> Sequence[Webhook]:
        """Return the caller's webhooks, oldest first, without their secrets."""

        def work(db: sqlite3.Connection) -> list[Webhook]:
            query = "SELECT webhook_id, url, created_at FROM webhooks WHERE user_id = ? ORDER BY created_at, rowid"
            return [
                Webhook(webhook_id=webhook_id, url=url, created_at=from_microseconds(created_at))
                for webhook_id, url, created_at in db.execute(query, (caller.user_id,))
            ]

        return await self._db.read(work)

    async def delete_webhook(self, caller: Identity, webhook_id: str) -> None:
        """Remove a webhook and its deliveries, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> None:
            values = (rows.bindable(webhook_id), caller.user_id)
            if not db.execute("DELETE FROM webhooks WHERE webhook_id = ? AND user_id = ?", values).rowcount:
                raise NotFoundError("no such webhook")

        await self._db.write(work)

    async def list_deliveries(self, caller: Identity, *, limit: int = 50) -> Sequence[Delivery]:
        """Return the caller's latest deliveries, newest first."""
        query = f"{_SELECT} WHERE w.user_id = ? ORDER BY d.created_at DESC, d.delivery_id DESC LIMIT ?"
        return await self._db.read(lambda db: [_delivery(row) for row in db.execute(query, (caller.user_id, limit))])

    async def replay(self, caller: Identity, delivery_id: str) -> Delivery:
        """Send a delivery again, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> Delivery:
            values = (rows.bindable(delivery_id), caller.user_id)
            found = db.execute(f"{_SELECT} WHERE d.delivery_id = ? AND w.user_id = ?", values).fetchone()
            if found is None:
                raise NotFoundError("no such delivery")
            db.execute(
                "UPDATE deliveries SET status = 'pending', attempts = 0, last_error = NULL, next_attempt_at = ?"
                " WHERE delivery_id = ?",
                (microseconds(self._policy.now()), delivery_id),
            )
            return _delivery(db.execute(f"{_SELECT} WHERE d.delivery_id = ?", (delivery_id,)).fetchone())

        return await self._db.write(work)

    async def claim_deliveries(self, *, limit: int, lease_s: float) -> Sequence[DueDelivery]:
        """Claim up to ``limit`` deliveries that are due, oldest first."""
        now = microseconds(self._policy.now())
        due = "SELECT 1 FROM deliveries WHERE next_attempt_at <= ? LIMIT 1"
        if await self._db.read(lambda db: db.execute(due, (now,)).fetchone()) is None:
            return []  # idle senders only read, so that they do not delay writes

        def work(db: sqlite3.Connection) -> list[DueDelivery]:
            forgotten = now - KEPT_DAYS * 86_400 * 1_000_000
            db.execute("DELETE FROM deliveries WHERE next_attempt_at IS NULL AND created_at < ?", (forgotten,))
            found = db.execute(
                """
                SELECT d.delivery_id, w.url, w.secret, d.payload, d.attempts
                FROM deliveries d JOIN webhooks w ON w.webhook_id = d.webhook_id
                WHERE d.next_attempt_at <= ? ORDER BY d.created_at, d.delivery_id LIMIT ?
                """,
                (now, limit),
            ).fetchall()
            db.executemany(
                "UPDATE deliveries SET attempts = attempts + 1, next_attempt_at = ? WHERE delivery_id = ?",
                [(now + int(lease_s * 1e6), row[0]) for row in found],
            )
            return [
                DueDelivery(delivery_id=delivery_id, url=url, secret=secret, payload=payload, attempts=attempts + 1)
                for delivery_id, url, secret, payload, attempts in found
            ]

        return await self._db.write(work)

    async def delivered(self, delivery_id: str) -> None:
        """Record that a delivery was received."""
        await self._settle(delivery_id, "delivered", None, None)

    async def not_delivered(self, delivery_id: str, error: str, *, retry_after_s: float | None) -> None:
        """Record why an attempt failed, and when to try again."""
        if retry_after_s is None:
            await self._settle(delivery_id, "failed", None, error)
        else:
            again = microseconds(self._policy.now()) + int(retry_after_s * 1e6)
            await self._settle(delivery_id, "pending", again, error)

    async def check(self) -> None:
        """Check that the database file is writable."""
        await self._db.check()

    async def aclose(self) -> None:
        """Close the database, after pending work has finished."""
        await self._db.aclose()

    async def _settle(self, delivery_id: str, status: str, again: int | None, error: str | None) -> None:
        await self._db.write(
            lambda db: db.execute(
                "UPDATE deliveries SET status = ?, next_attempt_at = ?, last_error = ?"
                " WHERE delivery_id = ? AND status = 'pending'",
                (status, again, error, delivery_id),
            )
        )


def _delivery(row: Sequence[Any]) -> Delivery:
    return Delivery(
        delivery_id=row[0],
        webhook_id=row[1],
        task_id=row[2],
        payload=row[3],
        status=DeliveryStatus(row[4]),
        attempts=row[5],
        next_attempt_at=None if row[6] is None else from_microseconds(row[6]),
        last_error=row[7],
        created_at=from_microseconds(row[8]),
    )

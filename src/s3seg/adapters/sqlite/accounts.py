"""Reads and writes accounts and the ledger of their credits."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from s3seg.adapters.sqlite.policy import Policy
from s3seg.errors import AuthInvalidError
from s3seg.tasks.limits import Tier
from s3seg.tasks.records import Account, LedgerEntry, from_microseconds, microseconds
from s3seg.tasks.retention import ACCOUNT_DELETED


def ensure_account(
    connection: sqlite3.Connection, user_id: str, tier: Tier | None, *, policy: Policy, now: datetime
) -> Account:
    """Return a user's account, and create it if it does not exist; an existing account keeps its tier.

    Raises:
        AuthInvalidError: The account was deleted.
    """
    found = open_account(connection, user_id, policy=policy)
    if found is not None:
        return found
    connection.execute(
        "INSERT INTO accounts (user_id, tier, created_at) VALUES (?, ?, ?)",
        (user_id, tier or Tier.FREE, microseconds(now)),
    )
    if policy.welcome_credits:
        book(connection, user_id, policy.welcome_credits, "grant", task_id=None, now=now)
    return Account(
        user_id=user_id,
        tier=tier or Tier.FREE,
        credits=policy.welcome_credits,
        retention_s=policy.rules.retention_s,
    )


def open_account(connection: sqlite3.Connection, user_id: str, *, policy: Policy) -> Account | None:
    """Return the account of a user, or None if there is none.

    Raises:
        AuthInvalidError: The account was deleted.
    """
    row = connection.execute("SELECT tier, credits, closed_at FROM accounts WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return None
    if row[2] is not None:
        raise AuthInvalidError(ACCOUNT_DELETED)
    return Account(user_id=user_id, tier=Tier(row[0]), credits=row[1], retention_s=policy.rules.retention_s)


def has_account(connection: sqlite3.Connection, user_id: str) -> bool:
    """Return whether a user has an account, which may have been deleted."""
    return connection.execute("SELECT 1 FROM accounts WHERE user_id = ?", (user_id,)).fetchone() is not None


def select_ledger(
    connection: sqlite3.Connection, user_id: str, *, limit: int = -1, offset: int = 0
) -> list[LedgerEntry]:
    """Return the changes of a user's credits, oldest first."""
    query = "SELECT delta, reason, task_id, created_at FROM ledger WHERE user_id = ? ORDER BY id LIMIT ? OFFSET ?"
    return [
        LedgerEntry(user_id=user_id, delta=row[0], reason=row[1], task_id=row[2], created_at=from_microseconds(row[3]))
        for row in connection.execute(query, (user_id, limit, offset))
    ]


def book(
    connection: sqlite3.Connection,
    user_id: str,
    delta: int,
    reason: str,
    *,
    task_id: str | None,
    now: datetime,
) -> None:
    """Change a user's credits: add a ledger row, whose trigger updates the balance."""
    connection.execute(
        "INSERT INTO ledger (user_id, delta, reason, task_id, created_at) VALUES (?, ?, ?, ?, ?)",
        (user_id, delta, reason, task_id, microseconds(now)),
    )

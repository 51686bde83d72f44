"""The settings that apply to tasks and accounts, and the one of them that the database records."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from s3seg.tasks.health import MismatchError
from s3seg.tasks.limits import RATE_LIMITS, RateTable
from s3seg.tasks.state_machine import Rules


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that apply to tasks and accounts.

    Attributes:
        public_base: Base URL under which stored objects are served.
        rules: Attempts and deadline of a task.
        rates: Number of actions allowed in any 60 seconds.
        welcome_credits: Credits of a new account.
        now: Returns the current time, UTC.
        clock: Returns the time in seconds, from a clock of the machine that nobody sets; for the rate limit of submits.
    """

    public_base: str = "http://127.0.0.1:8000/files"
    rules: Rules = field(default_factory=Rules)
    rates: RateTable = field(default_factory=lambda: RATE_LIMITS)
    welcome_credits: int = 10
    now: Callable[[], datetime] = _utc_now
    clock: Callable[[], float] = time.monotonic


def record_public_base(connection: sqlite3.Connection, public_base: str) -> None:
    """Record the public base URL of the edge, which stores it with each image."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('public_base_url', ?)", (public_base.rstrip("/"),))


def require_same_public_base(connection: sqlite3.Connection, public_base: str) -> None:
    """Compare a public base URL with the one that the edge recorded, if any.

    Raises:
        MismatchError: If they differ.
    """
    found = connection.execute("SELECT value FROM meta WHERE key = 'public_base_url'").fetchone()
    if found is not None and found[0] != public_base.rstrip("/"):
        raise MismatchError(
            f"S3SEG_PUBLIC_BASE_URL is {public_base!r} here and {found[0]!r} in the edge that was started last; set it "
            "to the same value in all services"
        )

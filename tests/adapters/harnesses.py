"""The harnesses of the in-memory and SQLite adapters, with a clock that tests move."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from s3seg.adapters.memory import MemoryAccounts, MemoryTables, MemoryTaskQueue, MemoryTaskStore
from s3seg.adapters.memory.webhooks import MemoryWebhooks
from s3seg.adapters.sqlite import Database, Policy, SqliteAccounts, SqliteTaskQueue, SqliteTaskStore
from s3seg.adapters.sqlite.webhooks import SqliteWebhooks
from s3seg.tasks.limits import Tier
from s3seg.tasks.records import Identity
from s3seg.tasks.state_machine import Rules
from s3seg.testing.harness import PUBLIC_BASE, TaskHarness


class _ClockedHarness(TaskHarness):
    def __init__(self) -> None:
        self.rules = Rules()
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def clock(self) -> float:
        return self._now.timestamp()

    async def new_identity(self, *, tier: Tier, anonymous: bool = False) -> Identity:
        return Identity(user_id=str(uuid.uuid4()), tier=tier, anonymous=anonymous)

    async def pass_time(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class MemoryHarness(_ClockedHarness):
    def __init__(self) -> None:
        super().__init__()
        tables = MemoryTables(public_base=PUBLIC_BASE, rules=self.rules, now=self.now, clock=self.clock)
        self.tables = tables
        self.store = MemoryTaskStore(tables)
        self.queue = MemoryTaskQueue(tables)
        self.accounts = MemoryAccounts(tables)
        self.webhooks = self.outbox = MemoryWebhooks(tables)

    async def set_retention(self, seconds: int | None) -> None:
        self.tables.rules = Rules(retention_s=seconds)


class SqliteHarness(_ClockedHarness):
    """Store, queue and accounts have a database object each, as in three processes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        policy = Policy(public_base=PUBLIC_BASE, rules=self.rules, now=self.now, clock=self.clock)
        self.policy = policy
        self.path = path
        self.store = SqliteTaskStore(Database(path), policy=policy)
        self.queue = SqliteTaskQueue(Database(path), policy=policy)
        self.accounts = SqliteAccounts(Database(path), policy=policy)
        self.webhooks = SqliteWebhooks(Database(path), policy=policy)
        self.outbox = SqliteWebhooks(Database(path), policy=policy)

    async def set_retention(self, seconds: int | None) -> None:
        object.__setattr__(self.policy, "rules", Rules(retention_s=seconds))  # all parts have the same policy

    async def aclose(self) -> None:
        for part in (self.store, self.queue, self.accounts, self.webhooks, self.outbox):
            await part.aclose()

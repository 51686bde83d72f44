"""The task queue and the accounts on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime

from s3seg.adapters.sqlite import accounts, retention, rows
from s3seg.adapters.sqlite.database import Database
from s3seg.adapters.sqlite.policy import Policy, require_same_public_base
from s3seg.errors import InvalidRequestError, LeaseLostError, NotFoundError
from s3seg.tasks import state_machine
from s3seg.tasks.backlog import RECENT_S, Backlog
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Claim, Failure, Lease, Outcome, Task
from s3seg.tasks.records import Account, LedgerEntry, microseconds
from s3seg.tasks.retention import Collection

_CLAIMABLE = """
    SELECT task_id FROM (
        SELECT * FROM (
            SELECT t.task_id, t.created_at FROM tasks t WHERE t.status = 'pending' AND t.deadline > :now{only}
            ORDER BY t.created_at LIMIT :limit)
        UNION ALL
        SELECT * FROM (
            SELECT t.task_id, t.created_at FROM leases l JOIN tasks t ON t.task_id = l.task_id
            WHERE l.expires_at <= :now AND l.attempt - l.released < :attempts AND t.deadline > :now{only}
            ORDER BY t.created_at LIMIT :limit)
    ) ORDER BY created_at LIMIT :limit
"""
_ANY_CLAIMABLE = _CLAIMABLE.format(only="")
_CLAIMABLE_WITHOUT_TILES = _CLAIMABLE.format(only=" AND (t.visual IS NULL OR json_type(t.visual, '$.tile') IS NULL)")
_EXPIRED = """
    SELECT task_id FROM tasks WHERE status IN ('pending', 'processing') AND deadline <= :now
    UNION
    SELECT task_id FROM leases WHERE expires_at <= :now AND attempt - released >= :attempts
    LIMIT :limit
"""
_BACKLOG = """
    SELECT count(*) FILTER (WHERE NOT held), count(*) FILTER (WHERE held), count(DISTINCT worker) FILTER (WHERE held),
        coalesce(max(0, :now - min(created_at) FILTER (WHERE NOT held)), 0)
    FROM (
        SELECT t.created_at, l.worker, l.worker IS NOT NULL AND l.expires_at > :now AS held
        FROM tasks t LEFT JOIN leases l ON l.task_id = t.task_id
        WHERE t.status IN ('pending', 'processing') AND t.deadline > :now)
"""
_ENDED_RECENTLY = "SELECT count(*) FROM tasks WHERE status = 'done' AND updated_at > :recent"


class SqliteTaskQueue:
    """A `TaskQueue` in an SQLite file, which any number of worker processes share."""

    def __init__(self, database: Database, *, policy: Policy | None = None) -> None:
        self._db = database
        self._policy = policy or Policy()

    async def get_task(self, task_id: str) -> Task:
        """Return the task with this id, or raise NotFoundError."""
        task = await self._db.read(lambda db: rows.find_task(db, task_id))
        if task is None:
            raise NotFoundError("no such task")
        return task

    async def claim(self, worker: str, task_id: str, *, lease_s: float) -> Claim | None:
        """Claim a task, or return None if it cannot be claimed now."""

        def work(db: sqlite3.Connection) -> Claim | None:
            return self._claim(db, task_id, worker, lease_s)

        return await self._db.write(work)

    async def claim_batch(self, worker: str, *, limit: int, lease_s: float, with_tiles: bool = True) -> Sequence[Claim]:
        """Claim up to ``limit`` tasks, oldest first; those with tiles only if they are wanted."""
        claimable = _ANY_CLAIMABLE if with_tiles else _CLAIMABLE_WITHOUT_TILES
        # idle workers only read, so that their polling does not delay writes
        if not await self._db.read(lambda db: self._candidates(db, claimable, 1)):
            return []

        def work(db: sqlite3.Connection) -> list[Claim]:
            claims = [self._claim(db, task_id, worker, lease_s) for task_id in self._candidates(db, claimable, limit)]
            return [claim for claim in claims if claim is not None]

        return await self._db.write(work)

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """Extend a lease, or raise LeaseLostError."""

        def move(task: Task) -> Task:
            return state_machine.renew(task, lease, lease_s=lease_s, now=self._policy.now())

        return state_machine.lease_of(await self._move(lease, move))

    async def release(self, lease: Lease) -> None:
        """Give a task back without counting the attempt; does nothing if the lease is lost."""
        try:
            await self._move(lease, lambda task: state_machine.release(task, lease, now=self._policy.now()))
        except LeaseLostError:
            return

    async def finish(self, lease: Lease, outcome: Outcome) -> Task:
        """End the task in ``done`` with its outcome, or raise LeaseLostError."""
        return await self._move(lease, lambda task: state_machine.finish(task, lease, outcome, now=self._policy.now()))

    async def fail(self, lease: Lease, failure: Failure, *, retry_after_s: float | None = None) -> Task:
        """End the attempt without a result: retry the task, or end it in error and refund it."""

        def move(task: Task) -> Task:
            return state_machine.fail(
                task,
                lease,
                failure,
                retry_after_s=retry_after_s,
                rules=self._policy.rules,
                now=self._policy.now(),
            )

        return await self._move(lease, move)

    async def reap(self, *, limit: int = 100) -> Sequence[Task]:
        """End and refund tasks that are past their deadline or out of attempts."""
        if not await self._db.read(lambda db: self._candidates(db, _EXPIRED, 1)):
            return []

        def work(db: sqlite3.Connection) -> list[Task]:
            ended: list[Task] = []
            for task_id in self._candidates(db, _EXPIRED, limit):
                task, now = rows.find_task(db, task_id), self._policy.now()
                after = None if task is None else state_machine.reap(task, rules=self._policy.rules, now=now)
                if task is not None and after is not None:
                    ended.append(rows.save_move(db, task, after, now=now))
            return ended

        return await self._db.write(work)

    async def backlog(self) -> Backlog:
        """Return how many tasks wait and run, for how long, and how many were done lately."""
        now = microseconds(self._policy.now())

        def work(db: sqlite3.Connection) -> Backlog:
            waiting, running, workers, oldest = db.execute(_BACKLOG, {"now": now}).fetchone()
            (ended,) = db.execute(_ENDED_RECENTLY, {"recent": now - int(RECENT_S * 1e6)}).fetchone()
            return Backlog(
                waiting=waiting, running=running, workers=workers, oldest_wait_s=oldest / 1e6, ended_recently=ended
            )

        return await self._db.read(work)

    async def check(self) -> None:
        """Check that the database file is writable, and that the edge uses the same public base URL."""
        await self._db.check()
        await self._db.read(lambda db: require_same_public_base(db, self._policy.public_base))

    async def aclose(self) -> None:
        """Close the database, after pending work has finished."""
        await self._db.aclose()

    def _candidates(self, db: sqlite3.Connection, query: str, limit: int) -> list[str]:
        values = {
            "now": microseconds(self._policy.now()),
            "attempts": self._policy.rules.max_attempts,
            "limit": limit,
        }
        return [row[0] for row in db.execute(query, values)]

    def _claim(self, db: sqlite3.Connection, task_id: str, worker: str, lease_s: float) -> Claim | None:
        task, now = rows.find_task(db, task_id), self._policy.now()
        if task is None:
            return None
        taken = state_machine.claim(task, worker=worker, lease_s=lease_s, rules=self._policy.rules, now=now)
        if taken is None:
            return None
        rows.save_move(db, task, taken, now=now)
        return Claim(task=taken, lease=state_machine.lease_of(taken))

    async def _move(self, lease: Lease, move: Callable[[Task], Task]) -> Task:
        def work(db: sqlite3.Connection) -> Task:
            task = rows.find_task(db, lease.task_id)
            if task is None:
                raise LeaseLostError(f"task {lease.task_id} was deleted")
            return rows.save_move(db, task, move(task), now=self._policy.now())

        return await self._db.write(work)


class SqliteAccounts:
    """`Accounts` in an SQLite file."""

    def __init__(self, database: Database, *, policy: Policy | None = None) -> None:
        self._db = database
        self._policy = policy or Policy()

    async def ensure(self, user_id: str, *, tier: Tier | None = None) -> Account:
        """Return a user's account, and create it if it does not exist; set its tier if one is given."""

        def work(db: sqlite3.Connection) -> Account:
            account = self._ensure(db, user_id, tier)
            if tier is None or account.tier == tier:
                return account
            db.execute("UPDATE accounts SET tier = ? WHERE user_id = ?", (tier, user_id))
            return Account(user_id=user_id, tier=tier, credits=account.credits)

        return await self._db.write(work)

    async def adjust(self, user_id: str, delta: int) -> Account:
        """Add or take credits through the ledger; the balance never becomes negative."""

        def work(db: sqlite3.Connection) -> Account:
            account = self._ensure(db, user_id, None)
            if account.credits + delta < 0:
                raise InvalidRequestError(f"the account has {account.credits} credits; cannot take {-delta}")
            if delta:
                accounts.book(db, user_id, delta, "adjust", task_id=None, now=self._policy.now())
            return Account(user_id=user_id, tier=account.tier, credits=account.credits + delta)

        return await self._db.write(work)

    async def ledger(self, user_id: str) -> Sequence[LedgerEntry]:
        """Return all changes of a user's credits, oldest first."""
        return await self._db.read(lambda db: accounts.select_ledger(db, user_id))

    async def close(self, user_id: str) -> datetime:
        """Mark an account as deleted."""
        return await self._db.write(lambda db: rows.close_account(db, user_id, policy=self._policy))

    async def collect(self, *, limit: int = 500) -> Collection:
        """Remove what has ended and what deleted accounts have."""
        now = microseconds(self._policy.now())
        # like idle workers, idle collectors only read
        if not await self._db.read(lambda db: retention.anything_to_collect(db, now=now)):
            return Collection(images=0, results=0, object_keys=())
        return await self._db.write(lambda db: retention.collect(db, now=now, limit=limit))

    async def closed_accounts(self, *, limit: int = 100) -> Sequence[str]:
        """Return users of deleted accounts who may have stored objects."""
        return await self._db.read(lambda db: retention.closed_accounts(db, limit=limit))

    async def emptied(self, user_id: str) -> None:
        """Record that a deleted account has no stored objects any more."""
        now = microseconds(self._policy.now())
        query = "UPDATE accounts SET emptied_at = ? WHERE user_id = ? AND closed_at IS NOT NULL"
        await self._db.write(lambda db: db.execute(query, (now, user_id)))

    async def begin_job(self, name: str, *, every_s: float) -> bool:
        """Return whether a recurring job is due, and record that it has begun if so."""

        def work(db: sqlite3.Connection) -> bool:
            now, key = microseconds(self._policy.now()), f"job:{name}"
            found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            if found is not None and 0 <= now - int(found[0]) < every_s * 1e6:  # below 0 if the clock was set back
                return False
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(now)))
            return True

        return await self._db.write(work)

    async def known_users(self, user_ids: Sequence[str]) -> frozenset[str]:
        """Return those users who have an account here."""
        return await self._db.read(lambda db: frozenset(user for user in user_ids if accounts.has_account(db, user)))

    async def referenced(self, keys: Sequence[str]) -> frozenset[str]:
        """Return those of ``keys`` that belong to a registered image or a result."""

        def named(db: sqlite3.Connection, key: str) -> bool:
            query = """
                SELECT EXISTS (SELECT 1 FROM images WHERE object_key = ?1)
                    OR EXISTS (SELECT 1 FROM task_objects WHERE object_key = ?1)
            """
            return bool(db.execute(query, (key,)).fetchone()[0])

        return await self._db.read(lambda db: frozenset(key for key in keys if named(db, key)))

    async def check(self) -> None:
        """Check that the database file is writable."""
        await self._db.check()

    async def aclose(self) -> None:
        """Close the database, after pending work has finished."""
        await self._db.aclose()

    def _ensure(self, db: sqlite3.Connection, user_id: str, tier: Tier | None) -> Account:
        return accounts.ensure_account(db, user_id, tier, policy=self._policy, now=self._policy.now())

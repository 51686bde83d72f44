"""The task queue and the accounts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from s3seg.adapters.memory import retention
from s3seg.adapters.memory.tables import MemoryTables
from s3seg.errors import InvalidRequestError, LeaseLostError, NotFoundError
from s3seg.tasks import state_machine
from s3seg.tasks.backlog import RECENT_S, Backlog
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Claim, Failure, Lease, Outcome, Task, TaskStatus
from s3seg.tasks.records import Account, LedgerEntry
from s3seg.tasks.retention import Collection
from s3seg.tasks.visual import has_tiles


class MemoryTaskQueue:
    """A `TaskQueue` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._t = tables

    async def get_task(self, task_id: str) -> Task:
        """Return the task with this id, or raise NotFoundError."""
        try:
            return self._t.tasks[task_id]
        except KeyError:
            raise NotFoundError("no such task") from None

    async def claim(self, worker: str, task_id: str, *, lease_s: float) -> Claim | None:
        """Claim a task, or return None if it cannot be claimed now."""
        task = self._t.tasks.get(task_id)
        return None if task is None else self._claim(task, worker, lease_s)

    async def claim_batch(self, worker: str, *, limit: int, lease_s: float, with_tiles: bool = True) -> Sequence[Claim]:
        """Claim up to ``limit`` tasks, oldest first; those with tiles only if they are wanted."""
        claims: list[Claim] = []
        for task in self._t.oldest_first():
            if len(claims) == limit:
                break
            if not with_tiles and has_tiles(task.visual):
                continue
            claim = self._claim(task, worker, lease_s)
            if claim is not None:
                claims.append(claim)
        return claims

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """Extend a lease, or raise LeaseLostError."""
        task = self._held(lease)
        renewed = state_machine.renew(task, lease, lease_s=lease_s, now=self._t.now())
        return state_machine.lease_of(self._t.save(task, renewed))

    async def release(self, lease: Lease) -> None:
        """Give a task back without counting the attempt; does nothing if the lease is lost."""
        try:
            task = self._held(lease)
            self._t.save(task, state_machine.release(task, lease, now=self._t.now()))
        except LeaseLostError:
            return

    async def finish(self, lease: Lease, outcome: Outcome) -> Task:
        """End the task in ``done`` with its outcome, or raise LeaseLostError."""
        task = self._held(lease)
        return self._t.save(task, state_machine.finish(task, lease, outcome, now=self._t.now()))

    async def fail(self, lease: Lease, failure: Failure, *, retry_after_s: float | None = None) -> Task:
        """End the attempt without a result: retry the task, or end it in error and refund it."""
        task = self._held(lease)
        after = state_machine.fail(
            task, lease, failure, retry_after_s=retry_after_s, rules=self._t.rules, now=self._t.now()
        )
        return self._t.save(task, after)

    async def reap(self, *, limit: int = 100) -> Sequence[Task]:
        """End and refund tasks that are past their deadline or out of attempts."""
        ended: list[Task] = []
        for task in self._t.oldest_first():
            if len(ended) == limit:
                break
            after = state_machine.reap(task, rules=self._t.rules, now=self._t.now())
            if after is not None:
                ended.append(self._t.save(task, after))
        return ended

    async def backlog(self) -> Backlog:
        """Return how many tasks wait and run, for how long, and how many were done lately."""
        now = self._t.now()
        live = [task for task in self._t.tasks.values() if not task.ended and now < task.deadline]
        running = [task for task in live if state_machine.held(task, now=now)]
        waiting = [task for task in live if not state_machine.held(task, now=now)]
        recent = now - timedelta(seconds=RECENT_S)
        return Backlog(
            waiting=len(waiting),
            running=len(running),
            workers=len({task.attempts.worker for task in running}),
            oldest_wait_s=max(((now - task.created_at).total_seconds() for task in waiting), default=0.0),
            ended_recently=sum(
                task.status == TaskStatus.DONE and task.updated_at > recent for task in self._t.tasks.values()
            ),
        )

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def _claim(self, task: Task, worker: str, lease_s: float) -> Claim | None:
        taken = state_machine.claim(task, worker=worker, lease_s=lease_s, rules=self._t.rules, now=self._t.now())
        if taken is None:
            return None
        return Claim(task=self._t.save(task, taken), lease=state_machine.lease_of(taken))

    def _held(self, lease: Lease) -> Task:
        task = self._t.tasks.get(lease.task_id)
        if task is None:
            raise LeaseLostError(f"task {lease.task_id} was deleted")
        return task


class MemoryAccounts:
    """`Accounts` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._t = tables

    async def ensure(self, user_id: str, *, tier: Tier | None = None) -> Account:
        """Return a user's account, and create it if it does not exist; set its tier if one is given."""
        account = self._t.ensure(user_id, tier)
        if tier is not None:
            self._t.accounts[user_id] = account = replace(account, tier=tier)
        return account

    async def adjust(self, user_id: str, delta: int) -> Account:
        """Add or take credits through the ledger; the balance never becomes negative."""
        account = self._t.ensure(user_id, None)
        if account.credits + delta < 0:
            raise InvalidRequestError(f"the account has {account.credits} credits; cannot take {-delta}")
        self._t.book(user_id, delta, "adjust", None)
        return self._t.accounts[user_id]

    async def ledger(self, user_id: str) -> Sequence[LedgerEntry]:
        """Return all changes of a user's credits, oldest first."""
        return [entry for entry in self._t.ledger if entry.user_id == user_id]

    async def close(self, user_id: str) -> datetime:
        """Mark an account as deleted."""
        return retention.close(self._t, user_id)

    async def collect(self, *, limit: int = 500) -> Collection:
        """Remove what has ended and what deleted accounts have."""
        return retention.collect(self._t, limit=limit)

    async def closed_accounts(self, *, limit: int = 100) -> Sequence[str]:
        """Return users of deleted accounts who may have stored objects."""
        tables = (self._t.tasks, self._t.images, self._t.projects, self._t.concepts)
        owners = {row.user_id for rows in tables for row in rows.values()}
        return sorted(self._t.closed.keys() - self._t.emptied - owners)[:limit]

    async def emptied(self, user_id: str) -> None:
        """Record that a deleted account has no stored objects any more."""
        self._t.emptied.add(user_id)

    async def begin_job(self, name: str, *, every_s: float) -> bool:
        """Return whether a recurring job is due, and record that it has begun if so."""
        began, now = self._t.jobs.get(name), self._t.now()
        if began is not None and began <= now < began + timedelta(seconds=every_s):
            return False
        self._t.jobs[name] = now
        return True

    async def known_users(self, user_ids: Sequence[str]) -> frozenset[str]:
        """Return those users who have an account here."""
        return frozenset(self._t.accounts.keys() & set(user_ids))

    async def referenced(self, keys: Sequence[str]) -> frozenset[str]:
        """Return those of ``keys`` that belong to a registered image or a result."""
        named = {image.object_key for image in self._t.images.values()}
        named.update(key for task in self._t.tasks.values() for key in task.object_keys)
        return frozenset(named.intersection(keys))

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

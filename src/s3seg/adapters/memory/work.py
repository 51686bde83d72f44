"""What workers and operators may do, on dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from s3seg.adapters.memory.tables import MemoryTables
from s3seg.errors import InvalidRequestError, LeaseLostError, NotFoundError
from s3seg.tasks import state_machine
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Claim, Failure, Lease, Outcome, Task
from s3seg.tasks.records import Account, LedgerEntry


class MemoryTaskQueue:
    """A `TaskQueue` in dictionaries."""

    def __init__(self, tables: MemoryTables) -> None:
        self._t = tables

    async def get_task(self, task_id: str) -> Task:
        """See `TaskQueue.get_task`."""
        try:
            return self._t.tasks[task_id]
        except KeyError:
            raise NotFoundError("no such task") from None

    async def claim(self, worker: str, task_id: str, *, lease_s: float) -> Claim | None:
        """See `TaskQueue.claim`."""
        task = self._t.tasks.get(task_id)
        return None if task is None else self._claim(task, worker, lease_s)

    async def claim_batch(self, worker: str, *, limit: int, lease_s: float) -> Sequence[Claim]:
        """See `TaskQueue.claim_batch`."""
        claims: list[Claim] = []
        for task in self._t.oldest_first():
            if len(claims) == limit:
                break
            claim = self._claim(task, worker, lease_s)
            if claim is not None:
                claims.append(claim)
        return claims

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """See `TaskQueue.renew`."""
        task = self._held(lease)
        renewed = state_machine.renew(task, lease, lease_s=lease_s, now=self._t.now())
        return state_machine.lease_of(self._t.save(task, renewed))

    async def release(self, lease: Lease) -> None:
        """See `TaskQueue.release`."""
        try:
            task = self._held(lease)
            self._t.save(task, state_machine.release(task, lease, now=self._t.now()))
        except LeaseLostError:
            return

    async def finish(self, lease: Lease, outcome: Outcome) -> Task:
        """See `TaskQueue.finish`."""
        task = self._held(lease)
        return self._t.save(task, state_machine.finish(task, lease, outcome, now=self._t.now()))

    async def fail(self, lease: Lease, failure: Failure, *, retry_after_s: float | None = None) -> Task:
        """See `TaskQueue.fail`."""
        task = self._held(lease)
        after = state_machine.fail(
            task, lease, failure, retry_after_s=retry_after_s, rules=self._t.rules, now=self._t.now()
        )
        return self._t.save(task, after)

    async def reap(self, *, limit: int = 100) -> Sequence[Task]:
        """See `TaskQueue.reap`."""
        ended: list[Task] = []
        for task in self._t.oldest_first():
            if len(ended) == limit:
                break
            after = state_machine.reap(task, rules=self._t.rules, now=self._t.now())
            if after is not None:
                ended.append(self._t.save(task, after))
        return ended

    async def check(self) -> None:
        """See `Part.check`."""

    async def aclose(self) -> None:
        """See `Part.aclose`."""

    def _claim(self, task: Task, worker: str, lease_s: float) -> Claim | None:
        taken = state_machine.claim(task, worker=worker, lease_s=lease_s, rules=self._t.rules, now=self._t.now())
        if taken is None:
            return None
        return Claim(task=self._t.save(task, taken), lease=state_machine.lease_of(taken))

    def _held(self, lease: Lease) -> Task:
        task = self._t.tasks.get(lease.task_id)
        if task is None:
            raise LeaseLostError(f"task {lease.task_id} is gone")
        return task


class MemoryAccounts:
    """`Accounts` in dictionaries."""

    def __init__(self, tables: MemoryTables) -> None:
        self._t = tables

    async def ensure(self, user_id: str, *, tier: Tier | None = None) -> Account:
        """See `Accounts.ensure`."""
        account = self._t.ensure(user_id, tier)
        if tier is not None:
            self._t.accounts[user_id] = account = replace(account, tier=tier)
        return account

    async def adjust(self, user_id: str, delta: int) -> Account:
        """See `Accounts.adjust`."""
        account = self._t.ensure(user_id, None)
        if account.credits + delta < 0:
            raise InvalidRequestError(f"the account has {account.credits} credits; cannot take {-delta}")
        self._t.book(user_id, delta, "adjust", None)
        return self._t.accounts[user_id]

    async def ledger(self, user_id: str) -> Sequence[LedgerEntry]:
        """See `Accounts.ledger`."""
        return [entry for entry in self._t.ledger if entry.user_id == user_id]

    async def referenced(self, keys: Sequence[str]) -> frozenset[str]:
        """See `Accounts.referenced`."""
        named = {image.object_key for image in self._t.images.values()}
        named.update(key for task in self._t.tasks.values() for key in task.object_keys)
        return frozenset(named.intersection(keys))

    async def check(self) -> None:
        """See `Part.check`."""

    async def aclose(self) -> None:
        """See `Part.aclose`."""

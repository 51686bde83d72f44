"""The task queue and the accounts on Supabase; every call carries the secret key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from s3seg.adapters.supabase.rest import Rest, check_schema
from s3seg.adapters.supabase.rows import account_of, canonical_uuid, ledger_entry_of, moment, task_of
from s3seg.errors import (
    AuthInvalidError,
    ConfigurationError,
    ForbiddenError,
    InvalidRequestError,
    LeaseLostError,
    NotFoundError,
)
from s3seg.tasks.backlog import RECENT_S, Backlog
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Claim, Failure, Lease, Outcome, Task
from s3seg.tasks.records import Account, LedgerEntry
from s3seg.tasks.retention import Collection
from s3seg.tasks.state_machine import lease_of

_PAGE = 1000  # most rows in one response of PostgREST


class SupabaseTaskQueue:
    """A `TaskQueue` in a Supabase project, for any number of workers.

    Args:
        rest: The PostgREST API, with the secret key.
        public_base: Base URL of stored objects; `check` compares it with the one in the database.
    """

    def __init__(self, rest: Rest, *, public_base: str) -> None:
        self._rest = rest
        self._public_base = public_base

    async def get_task(self, task_id: str) -> Task:
        """Return the task with this id, or raise NotFoundError."""
        found = None
        if canonical_uuid(task_id) is not None:
            found = await self._call("worker_get", {"p_task_id": task_id}, safe=True)
        if found is None:
            raise NotFoundError("no such task")
        return task_of(found)

    async def claim(self, worker: str, task_id: str, *, lease_s: float) -> Claim | None:
        """Claim a task, or return None if it cannot be claimed now."""
        if canonical_uuid(task_id) is None:
            return None
        arguments = {"p_worker": worker, "p_task_id": task_id, "p_lease_s": lease_s}
        found = await self._call("worker_claim", arguments)
        return None if found is None else _claim_of(found)

    async def claim_batch(self, worker: str, *, limit: int, lease_s: float, with_tiles: bool = True) -> Sequence[Claim]:
        """Claim up to ``limit`` tasks, oldest first; those with tiles only if they are wanted."""
        arguments = {"p_worker": worker, "p_limit": limit, "p_lease_s": lease_s, "p_with_tiles": with_tiles}
        return [_claim_of(row) for row in await self._call("worker_claim_batch", arguments)]

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """Extend a lease, or raise LeaseLostError."""
        ends = await self._call("worker_renew", {**_held(lease), "p_lease_s": lease_s}, safe=True)
        return Lease(task_id=lease.task_id, worker=lease.worker, attempt=lease.attempt, expires_at=moment(ends))

    async def release(self, lease: Lease) -> None:
        """Give a task back without counting the attempt; does nothing if the lease is lost."""
        try:
            await self._call("worker_release", _held(lease), safe=True)
        except LeaseLostError:
            return

    async def finish(self, lease: Lease, outcome: Outcome) -> Task:
        """End the task in ``done`` with its outcome, or raise LeaseLostError. Repeating the same outcome succeeds."""
        arguments = {
            **_held(lease),
            "p_mask_image_url": outcome.mask_image_url,
            "p_labels": list(outcome.labels),
            "p_metadata": dict(outcome.metadata),
            "p_object_keys": list(outcome.object_keys),
        }
        return task_of(await self._call("worker_finish", arguments, safe=True))

    async def fail(self, lease: Lease, failure: Failure, *, retry_after_s: float | None = None) -> Task:
        """End the attempt without a result: retry the task, or end it in error and refund it."""
        arguments = {
            **_held(lease),
            "p_code": failure.code,
            "p_message": failure.message,
            "p_retry_after_s": retry_after_s,
        }
        return task_of(await self._call("worker_fail", arguments))

    async def reap(self, *, limit: int = 100) -> Sequence[Task]:
        """End and refund tasks that are past their deadline or out of attempts."""
        return [task_of(row) for row in await self._call("worker_reap", {"p_limit": limit})]

    async def backlog(self) -> Backlog:
        """Return how many tasks wait and run, for how long, and how many were done lately."""
        return Backlog(**await self._call("worker_backlog", {"p_recent_s": RECENT_S}, safe=True))

    async def check(self) -> None:
        """Check that the database responds, has the schema of s3seg, and accepts the secret key."""
        await _check_service(self._rest, self._public_base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def _call(self, function: str, arguments: dict[str, Any], *, safe: bool = False) -> Any:
        return await self._rest.call(self._rest.as_key(), function, arguments, safe=safe)


class SupabaseAccounts:
    """`Accounts` in a Supabase project.

    Args:
        rest: The PostgREST API, with the secret key.
        public_base: Base URL of stored objects; `check` compares it with the one in the database.
    """

    def __init__(self, rest: Rest, *, public_base: str) -> None:
        self._rest = rest
        self._public_base = public_base

    async def ensure(self, user_id: str, *, tier: Tier | None = None) -> Account:
        """Return a user's account, and create it if it does not exist; set its tier if one is given.

        The user must exist in Supabase Auth.

        Raises:
            InvalidRequestError: If Supabase Auth has no such user.
        """
        return await self._account("operator_ensure", {"p_user_id": user_id, "p_tier": tier})

    async def adjust(self, user_id: str, delta: int) -> Account:
        """Add or take credits through the ledger; the balance never becomes negative."""
        return await self._account("operator_adjust", {"p_user_id": user_id, "p_delta": delta})

    async def ledger(self, user_id: str) -> Sequence[LedgerEntry]:
        """Return all changes of a user's credits, oldest first."""
        entries: list[LedgerEntry] = []
        last = 0
        while canonical_uuid(user_id) is not None:
            query = self._rest.as_key().from_("credit_ledger").select("*").eq("user_id", user_id).gt("id", last)
            rows = await self._rest.run(query.order("id").limit(_PAGE), safe=True)
            if not rows:
                break
            entries += [ledger_entry_of(row) for row in rows]
            last = rows[-1]["id"]
        return entries

    async def close(self, user_id: str) -> datetime:
        """Mark an account as deleted. The user stays in Supabase Auth; delete them there too.

        Raises:
            InvalidRequestError: If Supabase Auth has no such user.
        """
        try:
            return moment(await self._call("operator_close", {"p_user_id": user_id}, safe=True))
        except ForbiddenError:
            raise InvalidRequestError(f"Supabase Auth has no user {user_id}") from None

    async def collect(self, *, limit: int = 500) -> Collection:
        """Remove what has ended and what deleted accounts have."""
        found = await self._call("operator_collect", {"p_limit": limit})
        return Collection(images=found["images"], results=found["results"], object_keys=tuple(found["object_keys"]))

    async def closed_accounts(self, *, limit: int = 100) -> Sequence[str]:
        """Return users of deleted accounts who may have stored objects."""
        return await self._call("operator_closed_accounts", {"p_limit": limit}, safe=True)

    async def emptied(self, user_id: str) -> None:
        """Record that a deleted account has no stored objects any more."""
        await self._call("operator_emptied", {"p_user_id": user_id}, safe=True)

    async def begin_job(self, name: str, *, every_s: float) -> bool:
        """Return whether a recurring job is due, and record that it has begun if so."""
        return await self._call("operator_begin_job", {"p_name": name, "p_every_s": every_s})

    async def known_users(self, user_ids: Sequence[str]) -> frozenset[str]:
        """Return those users who have an account here, or had one that was deleted in the last 30 days."""
        asked = {"p_user_ids": [user_id for user_id in user_ids if canonical_uuid(user_id) is not None]}
        return frozenset(await self._call("operator_known_users", asked, safe=True))

    async def referenced(self, keys: Sequence[str]) -> frozenset[str]:
        """Return those of ``keys`` that belong to a registered image or a result."""
        found: set[str] = set()
        for start in range(0, len(keys), _PAGE):
            asked = {"p_keys": list(keys[start : start + _PAGE])}
            found.update(await self._call("operator_referenced", asked, safe=True))
        return frozenset(found)

    async def check(self) -> None:
        """Check that the database responds, has the schema of s3seg, and accepts the secret key."""
        await _check_service(self._rest, self._public_base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def _call(self, function: str, arguments: dict[str, Any], *, safe: bool = False) -> Any:
        return await self._rest.call(self._rest.as_key(), function, arguments, safe=safe)

    async def _account(self, function: str, arguments: dict[str, Any]) -> Account:
        try:
            return account_of(await self._call(function, arguments))
        except ForbiddenError:
            raise InvalidRequestError(f"Supabase Auth has no user {arguments['p_user_id']}") from None


async def _check_service(rest: Rest, public_base: str) -> None:
    await check_schema(rest, public_base=public_base)
    try:
        await rest.call(rest.as_key(), "operator_referenced", {"p_keys": []}, safe=True)
    except (ForbiddenError, AuthInvalidError):
        raise ConfigurationError(
            "S3SEG_SUPABASE_SECRET_KEY is not a secret (or legacy service_role) key; take it from the project's "
            "API settings"
        ) from None


def _held(lease: Lease) -> dict[str, Any]:
    return {"p_task_id": lease.task_id, "p_worker": lease.worker, "p_attempt": lease.attempt}


def _claim_of(row: dict[str, Any]) -> Claim:
    task = task_of(row)
    return Claim(task=task, lease=lease_of(task))

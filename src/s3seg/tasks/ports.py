"""What the services need from the world, as small Protocols whose docstrings promise behaviour.

An adapter is any class with these methods. `s3seg.testing` has a behaviour suite for each port; an adapter
that passes it is as good as ours. All methods are safe to call concurrently from one event loop. Any of them
may raise `UnavailableError` when the part behind it does not answer; then nothing has happened, unless said
otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.model import Claim, Failure, Lease, Order, Outcome, Task
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import (
    Account,
    Cursor,
    Identity,
    LedgerEntry,
    NewImage,
    ObjectInfo,
    ObjectStream,
    Project,
    ProjectPage,
    StoredImage,
    Submitted,
    TaskPage,
    VerificationKey,
)


class Part(Protocol):
    """What every port has: a way to ask whether it works, and an end."""

    async def check(self) -> None:
        """Return if the part can serve now.

        Raises:
            UnavailableError: If it cannot; says why.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads. Calling it twice is harmless."""
        ...


class ObjectStore(Part, Protocol):
    """Images, masks and instance lists, by key; see `s3seg.tasks.object_keys` for keys and content types."""

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object: fully written and durable when this returns, or not at all.

        Raises:
            ObjectExistsError: If the key is taken; the object there is untouched. Of several puts at once
                exactly one succeeds.
            InvalidRequestError: If ``key`` cannot be a key.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            NotFoundError: If there is none, or ``key`` cannot be a key.
        """
        ...

    async def stream(self, key: str) -> ObjectStream:
        """Begin to read an object; chunks are at most 1 MiB.

        Raises:
            NotFoundError: If there is none, or ``key`` cannot be a key; before the first chunk.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there, or a key that cannot be, is no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix`` (a string, not a folder), in no particular order.

        Objects that come or go meanwhile may or may not be listed.
        """
        ...

    async def discard_partial_writes(self, before: datetime) -> int:
        """Remove what writers that died before ``before`` left half-written; how many there were."""
        ...

    def url(self, key: str) -> str:
        """The object's stable public address; says nothing of whether it exists."""
        ...

    def key_of(self, url: str) -> str | None:
        """The key that an address of ours names, or None for any other URL."""
        ...

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        """A short-lived URL that serves the object, or None where `url` serves it itself."""
        ...


class TaskStore(Part, Protocol):
    """The edge's side: what one user may do with images, tasks and projects.

    Every method acts as ``caller`` and sees only what is theirs: what belongs to another is absent, in the
    same words. A caller's account is made when first seen, with the configured number of credits.
    """

    async def account(self, caller: Identity) -> Account:
        """The caller's tier and credits."""
        ...

    async def register_image(self, caller: Identity, image: NewImage) -> StoredImage:
        """Make a stored object one of the caller's images.

        Raises:
            InvalidRequestError: If the key is taken or not under the caller's prefix, or the project is not
                the caller's.
            ForbiddenError: If the caller is anonymous.
        """
        ...

    async def get_image(self, caller: Identity, image_id: str) -> StoredImage:
        """One of the caller's images.

        Raises:
            NotFoundError: If there is none.
        """
        ...

    async def delete_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Cancel the image's live tasks, then forget it; returns what was forgotten, whose object remains.

        Tasks that have ended stay.

        Raises:
            NotFoundError: If there is none.
        """
        ...

    async def submit(self, caller: Identity, order: Order) -> Submitted:
        """Accept an order: check the rate, debit a credit per prompt, insert the task, in one transaction.

        In this order: a known idempotency key with the same order returns its task, with nothing counted or
        debited (the key is forgotten when its task is deleted); the rate of the account's tier; image and
        project; credits. If `UnavailableError` is raised the task may exist: repeat with an idempotency key.

        Raises:
            ForbiddenError: If the caller is anonymous.
            InvalidRequestError: If the key was used for another order, or image or project are not the
                caller's.
            RateLimitedError: If the tier's number of submits in the last 60 seconds is reached.
            InsufficientCreditsError: If the account holds too little.
        """
        ...

    async def get_task(self, caller: Identity, task_id: str) -> Task:
        """One of the caller's tasks.

        Raises:
            NotFoundError: If there is none (``task_id`` may be any string).
        """
        ...

    async def list_tasks(
        self,
        caller: Identity,
        *,
        project_id: str | None = None,
        page: int = 1,
        limit: int = 20,
        after: Cursor | None = None,
    ) -> TaskPage:
        """The caller's tasks of every status, newest first; ties by id, descending.

        Args:
            caller: Whose.
            project_id: Only this project's; one that is not the caller's has none.
            page: From 1; ignored where ``after`` is given.
            limit: 1 to 100.
            after: Begin just after this place.
        """
        ...

    async def cancel(self, caller: Identity, task_id: str) -> Task:
        """End a live task in error "cancelled" and refund it; one that has ended is returned as it is.

        Raises:
            NotFoundError: If there is none.
        """
        ...

    async def delete_task(self, caller: Identity, task_id: str) -> Task:
        """Cancel the task if it is live, then forget it; returns its last state, whose objects remain.

        The ledger keeps its rows.

        Raises:
            NotFoundError: If there is none.
        """
        ...

    async def create_project(self, caller: Identity, name: str) -> Project:
        """A new project; names need not differ."""
        ...

    async def get_project(self, caller: Identity, project_id: str) -> Project:
        """One of the caller's projects.

        Raises:
            NotFoundError: If there is none.
        """
        ...

    async def list_projects(self, caller: Identity, *, page: int = 1, limit: int = 20) -> ProjectPage:
        """The caller's projects, newest first."""
        ...

    async def rename_project(self, caller: Identity, project_id: str, name: str) -> Project:
        """Give a project another name.

        Raises:
            NotFoundError: If there is none.
        """
        ...

    async def delete_project(self, caller: Identity, project_id: str) -> None:
        """Forget a project; its images and tasks stay, in no project.

        Raises:
            NotFoundError: If there is none.
        """
        ...


class TaskQueue(Part, Protocol):
    """The workers' side: leases on tasks of every user. See `s3seg.tasks.state_machine` for the rules.

    Every method is one transaction, and durable when it returns. ``lease_s`` is 1 to 3600 seconds.
    """

    async def get_task(self, task_id: str) -> Task:
        """Any user's task.

        Raises:
            NotFoundError: If there is none (``task_id`` may be any string).
        """
        ...

    async def claim(self, worker: str, task_id: str, *, lease_s: float) -> Claim | None:
        """Take this task under a new attempt; None if it may not be claimed now (held, ended or absent)."""
        ...

    async def claim_batch(self, worker: str, *, limit: int, lease_s: float) -> Sequence[Claim]:
        """Take up to ``limit`` tasks, oldest first; no task goes to two workers at once."""
        ...

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """Extend a lease to ``lease_s`` from now, at most to the task's deadline.

        Raises:
            LeaseLostError: If the attempt is no longer current; stop working on it.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give a task back for others to claim at once, as if this attempt had not been; no error if lost."""
        ...

    async def finish(self, lease: Lease, outcome: Outcome) -> Task:
        """End the task in ``done``.

        Raises:
            LeaseLostError: If the attempt is no longer current, or the task is gone; delete what was stored.
        """
        ...

    async def fail(self, lease: Lease, failure: Failure, *, retry_after_s: float | None = None) -> Task:
        """End the attempt: the task may be claimed again after ``retry_after_s``, or ends in error, refunded.

        It ends if ``retry_after_s`` is None or no attempt is left.

        Raises:
            LeaseLostError: If the attempt is no longer current, or the task is gone.
        """
        ...

    async def reap(self, *, limit: int = 100) -> Sequence[Task]:
        """End up to ``limit`` tasks that are past their deadline or out of attempts, refunding each."""
        ...


class Accounts(Part, Protocol):
    """The operator's side: tiers, credits, and which objects are in use."""

    async def ensure(self, user_id: str, *, tier: Tier | None = None) -> Account:
        """The account, made if need be, with its tier set if one is given."""
        ...

    async def adjust(self, user_id: str, delta: int) -> Account:
        """Add credits (or take them) through the ledger; the account is made if need be.

        Raises:
            InvalidRequestError: If the account would go below zero; nothing changes.
        """
        ...

    async def ledger(self, user_id: str) -> Sequence[LedgerEntry]:
        """Every movement of a user's credits, oldest first."""
        ...

    async def referenced(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of ``keys`` that an image or a result names."""
        ...


class Authenticator(Part, Protocol):
    """Judges access tokens."""

    async def authenticate(self, token: str) -> Identity:
        """Who the token speaks for.

        Raises:
            AuthInvalidError: If it is malformed, expired, not meant for us, or signed by nobody we trust.
            ForbiddenError: If it is valid but anonymous, or its role is not ``authenticated``.
        """
        ...


class KeySource(Part, Protocol):
    """Where an authenticator finds keys: a file, a JWKS address, a shared secret."""

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """The key that a token's header names, or None if there is none for that id and algorithm."""
        ...


class RateLimiter(Part, Protocol):
    """Counts a user's actions in a moving window: never more than the table's number in any 60 seconds."""

    async def take(self, caller: Identity, action: Action, tier: Tier) -> RateDecision:
        """Count one action if it is allowed, in the user's bucket for it; a refused one is not counted."""
        ...


class WorkerNotifier(Part, Protocol):
    """How the edge tells the inference side that work is waiting."""

    async def wake(self, task: Task) -> None:
        """Ask for the task soon. A call that is lost raises nothing: claim loops find the task anyway."""
        ...

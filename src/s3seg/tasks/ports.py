"""The ports: what the services need from databases, object stores and other systems, as small Protocols.

An adapter is any class with the methods of a port; it does not need to inherit from it. The docstrings define the
behaviour, and `s3seg.testing` has a test suite for each port that checks it.

The following holds for every port, unless its docstring says otherwise. All methods may be called concurrently from
one event loop. A method raises `UnavailableError` if the system behind the adapter does not respond; in that case
nothing has changed. A method that changes something does so completely or not at all, and the change has been written
to the adapter's storage when the method returns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from s3seg.tasks.backlog import Backlog
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.model import Claim, Failure, Lease, Outcome, Task, TaskRequest
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import (
    Account,
    Concept,
    Cursor,
    Identity,
    LedgerEntry,
    NewImage,
    ObjectInfo,
    ObjectStream,
    PresignedPut,
    Project,
    ProjectPage,
    StoredImage,
    Submitted,
    TaskPage,
    VerificationKey,
)
from s3seg.tasks.retention import Collection


class Part(Protocol):
    """The methods that all ports share."""

    async def check(self) -> None:
        """Return if the adapter works now. Cheap enough to be called every few seconds.

        Raises:
            UnavailableError: If it does not work now; the message says why, without secrets or addresses.
            ConfigurationError: If it cannot work with its settings.
        """
        ...

    async def aclose(self) -> None:
        """Close connections and threads. Calling it again has no effect."""
        ...


class ObjectStore(Part, Protocol):
    """Stores images, masks and lists of instances by key. Objects never change once they are stored.

    `s3seg.tasks.object_keys` defines which keys are valid, and the content type of each.
    """

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object. It is fully written and durable when this returns, or not stored at all.

        Of several concurrent puts with the same key, exactly one succeeds.

        Raises:
            ObjectExistsError: If there is an object with this key already; it is left unchanged.
            InvalidRequestError: If ``key`` is not a valid key.
        """
        ...

    async def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            NotFoundError: If there is no such object, or ``key`` is not a valid key.
        """
        ...

    async def stream(self, key: str) -> ObjectStream:
        """Return the object as a stream of chunks of at most 1 MiB.

        A reader may stop at any time without closing the stream.

        Raises:
            NotFoundError: If there is no such object, or ``key`` is not a valid key. It is raised by this call, not
                while iterating.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object. Idempotent: nothing happens if there is no such object, or ``key`` is not a valid key."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Iterate over all objects whose key starts with ``prefix``, in no particular order.

        The prefix is a plain string; it need not end with a slash. Objects that are stored or deleted during the
        iteration may or may not be listed.
        """
        ...

    async def discard_partial_writes(self, before: datetime) -> int:
        """Remove unfinished writes that started before ``before``, and return how many there were."""
        ...

    def url(self, key: str) -> str:
        """Return the stable public URL of an object, whether or not the object exists."""
        ...

    def key_of(self, url: str) -> str | None:
        """Return the key of an object from its public URL, or None for any other URL."""
        ...

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        """Return a URL that serves the object for ``expires_s`` seconds, or None if the public URL serves it.

        The object need not exist.

        Raises:
            InvalidRequestError: If ``key`` is not a valid key; not checked where None is returned.
        """
        ...

    takes_presigned_puts: bool
    """Whether `presign_put` returns requests; if not, it returns None."""

    async def presign_put(self, key: str, *, size_bytes: int, expires_s: int) -> PresignedPut | None:
        """Return a request that stores an object of exactly this size, or None if the store cannot take one.

        The store itself refuses the request after ``expires_s`` seconds, with another size or another content type
        than the key's, and if there is an object with this key.

        Raises:
            InvalidRequestError: If ``key`` is not a valid key; not checked where None is returned.
        """
        ...


class TaskStore(Part, Protocol):
    """Images, tasks and projects, as one user sees and changes them; used by the edge service.

    Every method acts on behalf of ``caller``, who sees only their own data. An object of another user and an object
    that does not exist give the same error with the same message. An account is created when a caller is first
    seen, with the configured number of credits.

    Images and tasks whose time is over (``expires_at``) are as if they had been deleted, whether or not they have been
    collected.

    Raises:
        AuthInvalidError: `account`, and any method that stores something, if the caller's account was deleted.
    """

    async def account(self, caller: Identity) -> Account:
        """Return the caller's account, and create it if it does not exist."""
        ...

    async def credit_history(self, caller: Identity, *, limit: int = 100, offset: int = 0) -> Sequence[LedgerEntry]:
        """Return up to ``limit`` changes of the caller's credits, oldest first, without the first ``offset``."""
        ...

    async def close_account(self, caller: Identity) -> datetime:
        """Mark the caller's account as deleted, as `Accounts.close` does; return when it was first marked."""
        ...

    async def register_image(self, caller: Identity, image: NewImage) -> StoredImage:
        """Register an object that has been stored as one of the caller's images.

        Raises:
            InvalidRequestError: If the key is registered already or not under the caller's prefix, or the project
                is not the caller's.
            ForbiddenError: If the caller is anonymous.
        """
        ...

    async def get_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Return the caller's image with this id.

        Raises:
            NotFoundError: If the caller has no such image (``image_id`` may be any string).
        """
        ...

    async def find_image(self, caller: Identity, object_key: str) -> StoredImage | None:
        """Return the caller's image with this object key, or None if the caller has none (it may be any string)."""
        ...

    async def list_images(
        self, caller: Identity, *, limit: int = 20, after: Cursor | None = None
    ) -> Sequence[StoredImage]:
        """Return up to ``limit`` of the caller's images, newest first, beginning just after a position."""
        ...

    async def delete_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Delete an image, and cancel its tasks that have not ended; tasks that have ended are kept.

        Returns:
            The image as it was. Its stored object is not deleted; that is up to the caller of this method.

        Raises:
            NotFoundError: If the caller has no such image.
        """
        ...

    async def submit(self, caller: Identity, request: TaskRequest) -> Submitted:
        """Create a task: check the rate limit, debit one credit per prompt, and store the task, in one transaction.

        The checks are made in this order:

        1. If the idempotency key was used before with an equal request, that task is returned, and nothing is
           counted or debited. A key can be used again once its task is deleted.
        2. The rate limit of the account's tier.
        3. Image and project belong to the caller.
        4. The account has enough credits.

        If `UnavailableError` is raised, the task may or may not exist. With an idempotency key the request can be
        repeated safely.

        Raises:
            ForbiddenError: If the caller is anonymous.
            InvalidRequestError: If the idempotency key was used for a different request, or image or project are not
                the caller's.
            RateLimitedError: If the limit of submits within 60 seconds is reached.
            InsufficientCreditsError: If the account has too few credits.
        """
        ...

    async def find_repeat(self, caller: Identity, request: TaskRequest) -> Task | None:
        """Return the task that an earlier, equal request with the same idempotency key created, or None.

        It changes and counts nothing: a client that has paid for a task gets its answer even while its submits are
        refused.

        Raises:
            InvalidRequestError: If the idempotency key was used for a different request.
        """
        ...

    async def get_task(self, caller: Identity, task_id: str) -> Task:
        """Return the caller's task with this id.

        Raises:
            NotFoundError: If the caller has no such task (``task_id`` may be any string).
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
        """Return one page of the caller's tasks of any status, newest first; ties are sorted by id, descending.

        Args:
            caller: The user.
            project_id: Return only tasks of this project. The page is empty if the caller has no such project.
            page: Number of the page, from 1; ignored if ``after`` is given.
            limit: Most tasks on a page, from 1 to 100.
            after: Begin just after this position.
        """
        ...

    async def cancel(self, caller: Identity, task_id: str) -> Task:
        """End a task in error with the message "cancelled", and refund it.

        Idempotent: a task that has ended is returned unchanged.

        Raises:
            NotFoundError: If the caller has no such task.
        """
        ...

    async def delete_task(self, caller: Identity, task_id: str) -> Task:
        """Delete a task, after cancelling it if it has not ended. Its ledger entries are kept.

        Returns:
            The last state of the task. Its stored objects are not deleted; that is up to the caller of this method.

        Raises:
            NotFoundError: If the caller has no such task.
        """
        ...

    async def create_project(self, caller: Identity, name: str) -> Project:
        """Create a project; several projects may have the same name.

        Raises:
            ForbiddenError: If the caller is anonymous.
        """
        ...

    async def get_project(self, caller: Identity, project_id: str) -> Project:
        """Return the caller's project with this id.

        Raises:
            NotFoundError: If the caller has no such project (``project_id`` may be any string).
        """
        ...

    async def list_projects(self, caller: Identity, *, page: int = 1, limit: int = 20) -> ProjectPage:
        """Return one page of the caller's projects, newest first; pages are numbered from 1."""
        ...

    async def rename_project(self, caller: Identity, project_id: str, name: str) -> Project:
        """Rename a project and return its new state.

        Raises:
            NotFoundError: If the caller has no such project.
        """
        ...

    async def delete_project(self, caller: Identity, project_id: str) -> None:
        """Delete a project. Its images and tasks are kept, without a project.

        Raises:
            NotFoundError: If the caller has no such project.
        """
        ...

    async def create_concept(self, caller: Identity, name: str, definition: Mapping[str, Any]) -> Concept:
        """Store a concept; several may have the same name.

        Args:
            caller: The user.
            name: What results call it, 1 to 120 characters.
            definition: `ConceptDefinition.to_dict` of what it is made of; the store keeps it unread.

        Raises:
            ForbiddenError: If the caller is anonymous.
            InvalidRequestError: If the caller has `MAX_CONCEPTS` concepts.
        """
        ...

    async def get_concept(self, caller: Identity, concept_id: str) -> Concept:
        """Return the caller's concept with this id.

        Raises:
            NotFoundError: If the caller has no such concept (``concept_id`` may be any string).
        """
        ...

    async def list_concepts(self, caller: Identity) -> Sequence[Concept]:
        """Return all concepts of the caller, newest first; there are at most `MAX_CONCEPTS`."""
        ...

    async def delete_concept(self, caller: Identity, concept_id: str) -> None:
        """Delete a concept. Its images are kept, and tasks that use it are processed all the same.

        Raises:
            NotFoundError: If the caller has no such concept.
        """
        ...


class TaskQueue(Part, Protocol):
    """Leases on the tasks of all users; used by workers. `s3seg.tasks.state_machine` defines the rules.

    Every method is one transaction, and its changes are durable when it returns. ``lease_s`` is the length of a
    lease, from 1 to 3600 seconds.
    """

    async def get_task(self, task_id: str) -> Task:
        """Return the task with this id, whoever owns it.

        Raises:
            NotFoundError: If there is no such task (``task_id`` may be any string).
        """
        ...

    async def claim(self, worker: str, task_id: str, *, lease_s: float) -> Claim | None:
        """Claim the task under a new attempt number.

        Returns:
            The claim, or None if the task cannot be claimed now: another worker holds it, it has ended, or it does
            not exist. Of several concurrent claims of one task, at most one succeeds.
        """
        ...

    async def claim_batch(self, worker: str, *, limit: int, lease_s: float, with_tiles: bool = True) -> Sequence[Claim]:
        """Claim up to ``limit`` tasks, oldest first, and return the claims; none is given to two workers.

        Without ``with_tiles``, tasks that ask for tiles (`s3seg.tasks.visual.has_tiles`), which take much longer than
        others, are left to later claims.
        """
        ...

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """Extend a lease to ``lease_s`` seconds from now, but not beyond the deadline of the task. Idempotent.

        Raises:
            LeaseLostError: If the attempt is no longer the current one, or the deadline has passed; the worker must
                stop processing the task.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give a task back, so that it can be claimed again at once; the attempt is not counted.

        Idempotent: nothing happens if the attempt is no longer the current one.
        """
        ...

    async def finish(self, lease: Lease, outcome: Outcome) -> Task:
        """End the task in ``done`` with this outcome, and return it.

        Raises:
            LeaseLostError: If the attempt is no longer the current one, or the task was deleted; the worker must
                delete the objects of the outcome.
        """
        ...

    async def fail(self, lease: Lease, failure: Failure, *, retry_after_s: float | None = None) -> Task:
        """End the attempt without a result, and return the task.

        The task can be claimed again after ``retry_after_s`` seconds. If that is None, or no attempt is left, the
        task ends in error and is refunded.

        Raises:
            LeaseLostError: If the attempt is no longer the current one, or the task was deleted.
        """
        ...

    async def reap(self, *, limit: int = 100) -> Sequence[Task]:
        """End and refund up to ``limit`` tasks that are past their deadline or out of attempts, and return them.

        Concurrent calls never refund a task twice.
        """
        ...

    async def backlog(self) -> Backlog:
        """Return how many tasks wait and run, for how long, and how many were done lately.

        Tasks past their deadline are not counted: no worker may claim them.
        """
        ...


class Accounts(Part, Protocol):
    """Tiers, credits, and the objects in use; for operators."""

    async def ensure(self, user_id: str, *, tier: Tier | None = None) -> Account:
        """Return a user's account, and create it if it does not exist; set its tier if one is given. Idempotent."""
        ...

    async def adjust(self, user_id: str, delta: int) -> Account:
        """Add ``delta`` credits (negative to take some) and record it in the ledger; return the new account.

        The account is created if it does not exist. Not idempotent.

        Raises:
            InvalidRequestError: If the balance would become negative; nothing changes.
        """
        ...

    async def ledger(self, user_id: str) -> Sequence[LedgerEntry]:
        """Return all changes of a user's credits, oldest first; empty if there is no such account."""
        ...

    async def close(self, user_id: str) -> datetime:
        """Mark an account as deleted, for ever, and return when it was first marked.

        In the same transaction its unfinished tasks are cancelled and refunded, and its webhooks are removed with their
        secrets and deliveries. `collect` removes the rest. What stays is the account's id, tier and balance, and the
        ledger. Idempotent; an account that does not exist is created as a deleted one, without credits.
        """
        ...

    async def collect(self, *, limit: int = 500) -> Collection:
        """Remove images and tasks whose time is over, and what deleted accounts have, up to ``limit`` of each kind.

        A task that has not ended is never removed, and neither is its image. The objects are not deleted; that is up to
        the caller of this method. Concurrent calls never return the same key twice. When nothing is left, the
        collection is empty.
        """
        ...

    async def closed_accounts(self, *, limit: int = 100) -> Sequence[str]:
        """Return users whose deleted account has no rows left to collect, but who may have stored objects.

        They are those for whom `emptied` was not called.
        """
        ...

    async def emptied(self, user_id: str) -> None:
        """Record that a deleted account has no stored objects any more. Idempotent."""
        ...

    async def begin_job(self, name: str, *, every_s: float) -> bool:
        """Return whether the caller should do a recurring job now, and record that it has begun if so.

        It is due if nobody has begun it within ``every_s`` seconds; of several concurrent callers, one gets True.
        """
        ...

    async def known_users(self, user_ids: Sequence[str]) -> frozenset[str]:
        """Return those users who have an account here, or had one that was deleted lately."""
        ...

    async def referenced(self, keys: Sequence[str]) -> frozenset[str]:
        """Return those of ``keys`` that belong to a registered image or a result."""
        ...


class Authenticator(Part, Protocol):
    """Verifies access tokens."""

    async def authenticate(self, token: str) -> Identity:
        """Return the user that the token was issued to.

        Raises:
            AuthInvalidError: If the token is malformed, expired, issued for another audience, or signed with a key
                that is not trusted.
            ForbiddenError: If the token is valid, but the user is anonymous or the role is not ``authenticated``.
        """
        ...


class KeySource(Part, Protocol):
    """The keys that an authenticator trusts: from a file, a JWKS URL, or a shared secret."""

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key with this id for this algorithm, both as in the header of a token; None if there is none."""
        ...


class RateLimiter(Part, Protocol):
    """Limits the rate of each user's actions with a sliding window of 60 seconds."""

    async def take(self, caller: Identity, action: Action, tier: Tier) -> RateDecision:
        """Decide whether the caller may do one more action, and count it if so; a refused action is not counted.

        Every user has a separate count for each action. Of concurrent calls, never more than the limit of the tier
        are allowed in any 60 seconds.
        """
        ...


class WorkerNotifier(Part, Protocol):
    """Tells the inference workers that a task is waiting."""

    async def wake(self, task: Task) -> None:
        """Notify the workers of a task. Best effort: it never raises, since idle workers poll for tasks anyway."""
        ...

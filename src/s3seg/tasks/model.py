"""Values that the task machine works on: tasks, leases, orders, and what workers bring back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import MAX_IDEMPOTENCY_KEY_CHARS, MAX_PROMPTS


class TaskStatus(StrEnum):
    """``pending -> processing -> done | error``, or ``pending -> error``; never backwards."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"


def prompt_text(prompts: tuple[str, ...]) -> str:
    """The ``text_prompt`` of a task of several prompts: joined with ``", "``."""
    return ", ".join(prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What is kept beside a task's row about the workers that took it.

    Attributes:
        number: The current attempt; grows with every claim and never repeats (a fencing token).
        released: How many attempts were given back unharmed and do not count.
        worker: Who holds the lease; None if nobody has it.
        expires_at: When the lease ends, or from when a retry may start; None before the first claim.
    """

    number: int = 0
    released: int = 0
    worker: str | None = None
    expires_at: datetime | None = None

    @property
    def counted(self) -> int:
        """Attempts used up."""
        return self.number - self.released


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One accepted order, in any state; its id is the result's id too.

    Attributes:
        task_id: UUID.
        user_id: UUID of the owner.
        project_id: UUID of the project, if any (None once the project is deleted).
        image_id: UUID of the image (None once it is deleted).
        source_image_url: The image's stable address.
        prompts: 1 to 16 text prompts; each costs a credit.
        status: Where it stands.
        created_at, updated_at, deadline: Aware datetimes, UTC.
        mask_image_url: Address of the mask; "" until done.
        labels: Prompts that were found.
        metadata: ``inference_time_ms``, ``confidence``, ``model_version``, and more; empty until done.
        object_keys: Every object that the result consists of, sorted.
        error_code: A code of the contract, or ``CANCELLED``; None unless in error.
        error_message: A sentence for the owner; None unless in error.
        attempts: The lease, kept beside the row while the task is live.
    """

    task_id: str
    user_id: str
    project_id: str | None
    image_id: str | None
    source_image_url: str
    prompts: tuple[str, ...]
    status: TaskStatus
    created_at: datetime
    updated_at: datetime
    deadline: datetime
    mask_image_url: str = ""
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    object_keys: tuple[str, ...] = ()
    error_code: str | None = None
    error_message: str | None = None
    attempts: Attempts = Attempts()

    @property
    def text_prompt(self) -> str:
        """The prompts as the contract's one field."""
        return prompt_text(self.prompts)

    @property
    def cost(self) -> int:
        """Credits that the task was debited: one a prompt."""
        return len(self.prompts)

    @property
    def ended(self) -> bool:
        """Whether it is done or in error, and so will not change any more."""
        return self.status in (TaskStatus.DONE, TaskStatus.ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's right to work on a task: valid while ``attempt`` is the task's current one."""

    task_id: str
    worker: str
    attempt: int
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A task together with the lease that a worker got on it."""

    task: Task
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a worker found and stored.

    Attributes:
        mask_image_url: Address of the mask, which exists already.
        labels: The prompts that were found.
        metadata: JSON-serialisable; at least ``inference_time_ms``, ``confidence``, ``model_version``.
        object_keys: Keys of every object stored for it, so that they are not collected as garbage.
    """

    mask_image_url: str
    labels: tuple[str, ...]
    metadata: Mapping[str, Any]
    object_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt gave no result: a code of the contract and a sentence for the owner."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a user asks for.

    Attributes:
        image_url: One of the user's images.
        prompts: 1 to 16 text prompts, already checked one by one.
        project_id: One of the user's projects, or None.
        idempotency_key: 1 to 200 printable ASCII characters, or None.

    Raises:
        InvalidRequestError: If a number is out of range.
    """

    image_url: str
    prompts: tuple[str, ...]
    project_id: str | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.prompts) <= MAX_PROMPTS:
            raise InvalidRequestError(f"a task has 1 to {MAX_PROMPTS} prompts, not {len(self.prompts)}")
        key = self.idempotency_key
        if key is not None and not (1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable()):
            raise InvalidRequestError(
                f"an Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is asked for: equal for repeats of one request, and only for those."""
        body = json.dumps([self.image_url, self.prompts, self.project_id], ensure_ascii=True)
        return hashlib.sha256(body.encode("ascii")).hexdigest()

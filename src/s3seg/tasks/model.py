"""The values of the task state machine: tasks, leases, requests, and the outcomes that workers report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import MAX_IDEMPOTENCY_KEY_CHARS, MAX_PROMPTS


class TaskStatus(StrEnum):
    """The state of a task: ``pending -> processing -> done | error``, or ``pending -> error``; never backwards."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"


def prompt_text(prompts: tuple[str, ...]) -> str:
    """Return the ``text_prompt`` of a task: its prompts, joined with ``", "``."""
    return ", ".join(prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The attempts that workers have made at a task, and the current lease.

    Attributes:
        number: Number of the current attempt. It grows with every claim and never repeats (a fencing token).
        released: How many attempts were released, and so are not counted.
        worker: The worker that holds the lease, or None if no worker does.
        expires_at: When the lease expires, or when the next attempt may start; None before the first claim.
    """

    number: int = 0
    released: int = 0
    worker: str | None = None
    expires_at: datetime | None = None

    @property
    def counted(self) -> int:
        """Number of attempts that count towards the maximum."""
        return self.number - self.released


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request that was accepted, in any state. The id of the task is also the id of its result.

    Attributes:
        task_id: UUID.
        user_id: UUID of the owner.
        project_id: UUID of the project; None if there is none, or it was deleted.
        image_id: UUID of the image; None if it was deleted.
        source_image_url: The stable URL of the image.
        prompts: 1 to 16 text prompts, or descriptions of what ``visual`` asks for; each costs one credit.
        status: The state of the task.
        created_at, updated_at, deadline: Aware datetimes, UTC.
        mask_image_url: URL of the mask; empty until the task is done.
        labels: The prompts that were found in the image.
        metadata: ``inference_time_ms``, ``confidence``, ``model_version``, and more; empty until the task is done.
        object_keys: Keys of all stored objects of the result, sorted.
        error_code: An error code of the API, or ``CANCELLED``; None unless the status is ``error``.
        error_message: An explanation for the owner; None unless the status is ``error``.
        attempts: The attempts and the lease; empty once the task has ended.
        visual: What is asked for beside words, as JSON values, or None; see `s3seg.tasks.visual`.
        request_id: Id of the HTTP request that submitted it, for log lines; None if it is not known.
        keep_s: Seconds for which the result is kept once the task has ended; None until it is deleted.
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
    visual: Mapping[str, Any] | None = None
    request_id: str | None = None
    keep_s: int | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        """What every log line about the task has."""
        known = {} if self.request_id is None else {"request_id": self.request_id}
        return {"task_id": self.task_id, **known}

    @property
    def text_prompt(self) -> str:
        """The prompts as one text, as the API shows them."""
        return prompt_text(self.prompts)

    @property
    def cost(self) -> int:
        """Number of credits that the task costs: one per prompt."""
        return len(self.prompts)

    @property
    def ended(self) -> bool:
        """Whether the status is ``done`` or ``error``, which are final."""
        return self.status in (TaskStatus.DONE, TaskStatus.ERROR)

    @property
    def expires_at(self) -> datetime | None:
        """When the result ends; None if the task has not ended, or is kept until it is deleted."""
        return None if self.keep_s is None or not self.ended else self.updated_at + timedelta(seconds=self.keep_s)

    def expired(self, now: datetime) -> bool:
        """Return whether the time of the result is over."""
        return self.keep_s is not None and self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's right to process a task; valid while ``attempt`` is the current attempt of the task."""

    task_id: str
    worker: str
    attempt: int
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A task and the lease that a worker got on it."""

    task: Task
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a task, as the worker reports it.

    Attributes:
        mask_image_url: URL of the mask, which has already been stored.
        labels: The prompts that were found in the image.
        metadata: JSON-serialisable; at least ``inference_time_ms``, ``confidence``, ``model_version``.
        object_keys: Keys of all objects stored for the result, so that they are not collected as garbage.
    """

    mask_image_url: str
    labels: tuple[str, ...]
    metadata: Mapping[str, Any]
    object_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed: an error code of the API, and an explanation for the owner."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A user's request for a task.

    Attributes:
        image_url: URL of one of the user's images.
        prompts: 1 to 16 text prompts; the text of each must have been validated.
        project_id: One of the user's projects, or None.
        idempotency_key: 1 to 200 printable ASCII characters, or None.
        visual: What is asked for beside words, as JSON values, or None; see `s3seg.tasks.visual`.
        request_id: Id of the HTTP request, for log lines, or None; not part of what is asked for.
        keep_s: Seconds for which the result is kept once the task has ended, or None for the operator's time.

    Raises:
        InvalidRequestError: If the prompts are one text instead of several, too few or too many, or the idempotency
            key is not valid.
    """

    image_url: str
    prompts: tuple[str, ...]
    project_id: str | None = None
    idempotency_key: str | None = None
    visual: Mapping[str, Any] | None = None
    request_id: str | None = None
    keep_s: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str):  # it would be taken for a sequence of letters
            raise InvalidRequestError(f"the prompts of a task are a tuple of texts, not one text: {self.prompts!r:.60}")
        if not 1 <= len(self.prompts) <= MAX_PROMPTS:
            raise InvalidRequestError(f"a task has 1 to {MAX_PROMPTS} prompts, not {len(self.prompts)}")
        key = self.idempotency_key
        if key is not None and not (1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable()):
            raise InvalidRequestError(
                f"an Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is asked for: equal for repeats of the same request, and only for those."""
        more: list[Any] = [] if self.visual is None else [self.visual]
        if self.keep_s is not None:
            more.append(self.keep_s)
        body = json.dumps([self.image_url, self.prompts, self.project_id, *more], ensure_ascii=True, sort_keys=True)
        return hashlib.sha256(body.encode("ascii")).hexdigest()

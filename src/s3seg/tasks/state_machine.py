"""The task state machine, as pure functions over frozen values.

A task is accepted and paid for once. It then ends in ``done``, or in ``error``, in which case its credits are
refunded exactly once. Workers hold tasks through *leases*: a claim gives the task a new attempt number, and only
the current attempt may renew, finish or fail it. These transitions are legal, and no others:

    ==========  =========  ==========  ==================================================================
    from        event      to          condition, and what else happens
    ==========  =========  ==========  ==================================================================
    (none)      submit     pending     rate, image, project and credits allow it; debits 1 credit a prompt
    pending     claim      processing  before the deadline; attempt 1
    processing  claim      processing  lease expired, attempts left, before the deadline; attempt + 1
    processing  renew      processing  current attempt, before the deadline; lease extended
    processing  release    processing  current attempt; lease ends, the attempt is not counted
    processing  retry      processing  current attempt, attempts left; lease ends after a delay
    processing  finish     done        current attempt
    processing  fail       error       current attempt; refund
    pending     cancel     error       by its owner; refund
    processing  cancel     error       by its owner; refund
    pending     reap       error       deadline passed; refund
    processing  reap       error       deadline passed, or lease expired with no attempt left; refund
    ==========  =========  ==========  ==================================================================

``done`` and ``error`` are final, and a task that has ended has no lease. A lease never lasts longer than the
deadline. An attempt whose lease has expired stays the current one until another worker claims the task, so a
result that is merely late is not wasted. ``updated_at`` is the time of the last change of the status; claims and
renewals do not change it otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from s3seg.errors import InsufficientCreditsError, LeaseLostError
from s3seg.tasks.model import Attempts, Failure, Lease, Outcome, Task, TaskRequest, TaskStatus
from s3seg.tasks.retention import keep_for

_PENDING, _PROCESSING, _DONE, _ERROR = (
    TaskStatus.PENDING,
    TaskStatus.PROCESSING,
    TaskStatus.DONE,
    TaskStatus.ERROR,
)
MAX_MESSAGE_CHARS = 500
"""Most characters in an error message; longer ones are cut off."""


class Event(StrEnum):
    """An event in the life of an existing task."""

    CLAIM = "claim"
    RENEW = "renew"
    RELEASE = "release"
    RETRY = "retry"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    REAP = "reap"


TRANSITIONS: Mapping[tuple[TaskStatus, Event], TaskStatus] = MappingProxyType(
    {
        (_PENDING, Event.CLAIM): _PROCESSING,
        (_PROCESSING, Event.CLAIM): _PROCESSING,
        (_PROCESSING, Event.RENEW): _PROCESSING,
        (_PROCESSING, Event.RELEASE): _PROCESSING,
        (_PROCESSING, Event.RETRY): _PROCESSING,
        (_PROCESSING, Event.FINISH): _DONE,
        (_PROCESSING, Event.FAIL): _ERROR,
        (_PENDING, Event.CANCEL): _ERROR,
        (_PROCESSING, Event.CANCEL): _ERROR,
        (_PENDING, Event.REAP): _ERROR,
        (_PROCESSING, Event.REAP): _ERROR,
    }
)
"""All legal transitions: the next status, by current status and event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The parameters of the state machine.

    Attributes:
        max_attempts: How many attempts a task has; released ones are not counted.
        deadline_s: Seconds after which a task that has not ended is ended in error.
        retention_s: Seconds after which images and results end at the latest; None for never.
    """

    max_attempts: int = 3
    deadline_s: float = 900.0
    retention_s: int | None = None


def admit(
    request: TaskRequest,
    *,
    task_id: str,
    user_id: str,
    image_id: str,
    credits: int,
    rules: Rules,
    now: datetime,
) -> Task:
    """Return the new task for a request. Image and project must be the user's; the caller debits ``task.cost``.

    Raises:
        InsufficientCreditsError: If there are fewer ``credits`` than prompts.
        InvalidRequestError: If the result is to be kept for a time that is not allowed.
    """
    keep_s = keep_for(request.keep_s, retention_s=rules.retention_s)
    if credits < len(request.prompts):
        raise InsufficientCreditsError(f"the task costs {len(request.prompts)} credits, the account has {credits}")
    return Task(
        task_id=task_id,
        user_id=user_id,
        project_id=request.project_id,
        image_id=image_id,
        source_image_url=request.image_url,
        prompts=request.prompts,
        visual=request.visual,
        request_id=request.request_id,
        keep_s=keep_s,
        status=_PENDING,
        created_at=now,
        updated_at=now,
        deadline=now + timedelta(seconds=rules.deadline_s),
    )


def claimable(task: Task, *, rules: Rules, now: datetime) -> bool:
    """Return whether a worker may claim the task now."""
    return (
        not task.ended and now < task.deadline and task.attempts.counted < rules.max_attempts and _lease_over(task, now)
    )


def held(task: Task, *, now: datetime) -> bool:
    """Return whether a worker holds the task now."""
    return task.attempts.worker is not None and not _lease_over(task, now)


def claim(task: Task, *, worker: str, lease_s: float, rules: Rules, now: datetime) -> Task | None:
    """Return the task as claimed by a worker under a new attempt number, or None if it may not be claimed."""
    if not claimable(task, rules=rules, now=now):
        return None
    attempts = replace(
        task.attempts,
        number=task.attempts.number + 1,
        worker=worker,
        expires_at=_lease_end(task, now, lease_s),
    )
    return _move(task, Event.CLAIM, now, attempts=attempts)


def lease_of(task: Task) -> Lease:
    """Return the current lease of a task.

    Raises:
        LeaseLostError: If no worker holds the task.
    """
    attempts = task.attempts
    if attempts.worker is None or attempts.expires_at is None:
        raise LeaseLostError(f"no worker holds task {task.task_id}")
    return Lease(
        task_id=task.task_id,
        worker=attempts.worker,
        attempt=attempts.number,
        expires_at=attempts.expires_at,
    )


def renew(task: Task, lease: Lease, *, lease_s: float, now: datetime) -> Task:
    """Extend the lease of the current attempt.

    Raises:
        LeaseLostError: If the lease is not that of the current attempt, or the deadline has passed.
    """
    _require_current(task, lease)
    if now >= task.deadline:
        raise LeaseLostError(f"task {task.task_id} is past its deadline")
    return _move(task, Event.RENEW, now, attempts=replace(task.attempts, expires_at=_lease_end(task, now, lease_s)))


def release(task: Task, lease: Lease, *, now: datetime) -> Task:
    """Give the task back, so that it can be claimed again at once; the attempt is not counted.

    Raises:
        LeaseLostError: If the lease is not that of the current attempt.
    """
    _require_current(task, lease)
    attempts = replace(task.attempts, released=task.attempts.released + 1, worker=None, expires_at=now)
    return _move(task, Event.RELEASE, now, attempts=attempts)


def finish(task: Task, lease: Lease, outcome: Outcome, *, now: datetime) -> Task:
    """End the task in ``done``, with its result.

    Raises:
        LeaseLostError: If the lease is not that of the current attempt; its stored objects must be deleted.
    """
    _require_current(task, lease)
    return _move(
        task,
        Event.FINISH,
        now,
        attempts=Attempts(),
        mask_image_url=outcome.mask_image_url,
        labels=outcome.labels,
        metadata=dict(outcome.metadata),
        object_keys=tuple(sorted(outcome.object_keys)),
    )


def fail(
    task: Task,
    lease: Lease,
    failure: Failure,
    *,
    retry_after_s: float | None,
    rules: Rules,
    now: datetime,
) -> Task:
    """End the attempt without a result. The task is retried if it has attempts left, and ends in error otherwise.

    Args:
        task: The current state of the task.
        lease: The lease of the attempt.
        failure: Why the attempt failed; stored if the task ends.
        retry_after_s: Seconds until the next attempt may start, or None if the task must not be retried.
        rules: The parameters of the state machine.
        now: The current time.

    Raises:
        LeaseLostError: If the lease is not that of the current attempt.
    """
    _require_current(task, lease)
    if retry_after_s is not None and task.attempts.counted < rules.max_attempts:
        attempts = replace(task.attempts, worker=None, expires_at=_lease_end(task, now, retry_after_s))
        return _move(task, Event.RETRY, now, attempts=attempts)
    return _end_in_error(task, Event.FAIL, failure, now)


def cancel(task: Task, *, now: datetime) -> Task:
    """End the task in error because its owner cancels it; a task that has ended is returned unchanged."""
    if task.ended:
        return task
    return _end_in_error(task, Event.CANCEL, Failure(code="CANCELLED", message="cancelled"), now)


def reap(task: Task, *, rules: Rules, now: datetime) -> Task | None:
    """End a task that is past its deadline or out of attempts; return None if it may still be finished."""
    if task.ended:
        return None
    if now >= task.deadline:
        why = f"not finished within {rules.deadline_s:.0f} seconds"
    elif task.attempts.counted >= rules.max_attempts and _lease_over(task, now):
        why = f"given up after {task.attempts.counted} attempts"
    else:
        return None
    return _end_in_error(task, Event.REAP, Failure(code="INFERENCE_FAILED", message=why), now)


def refund(before: Task, after: Task) -> int:
    """Return the credits to refund for a transition: the cost of the task if it enters ``error``, or else 0."""
    return after.cost if after.status == _ERROR and before.status != _ERROR else 0


def _lease_over(task: Task, now: datetime) -> bool:
    return task.attempts.expires_at is None or task.attempts.expires_at <= now


def _lease_end(task: Task, now: datetime, seconds: float) -> datetime:
    return min(now + timedelta(seconds=seconds), task.deadline)


def _require_current(task: Task, lease: Lease) -> None:
    attempts = task.attempts
    if task.ended or attempts.worker != lease.worker or attempts.number != lease.attempt:
        raise LeaseLostError(
            f"attempt {lease.attempt} of {lease.worker} no longer holds task {task.task_id}: "
            f"it is {task.status}, attempt {attempts.number}"
        )


def _end_in_error(task: Task, event: Event, failure: Failure, now: datetime) -> Task:
    return _move(
        task,
        event,
        now,
        attempts=Attempts(),
        error_code=failure.code,
        error_message=failure.message[:MAX_MESSAGE_CHARS],
    )


def _move(task: Task, event: Event, now: datetime, **changes: Any) -> Task:
    status = TRANSITIONS[task.status, event]
    if status != task.status:
        # updated_at must not go backwards if the clock is set back
        changes["updated_at"] = max(now, task.updated_at)
    return replace(task, status=status, **changes)

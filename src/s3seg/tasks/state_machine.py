"""The task machine: what may happen to a task, as pure functions over frozen values.

A task is accepted (and paid for) once, then ends in ``done``, or in ``error`` with its credits given
back exactly once. Workers hold it through *leases*: a claim gives the task a new attempt number, and only
the current attempt may renew, finish or fail it. The legal transitions, and there are no others:

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

``done`` and ``error`` are final. A lease never outlives the deadline. An attempt whose lease has expired is
still the current one until another claims the task, so work that is merely late is not wasted.
What has ended has no lease any more. ``updated_at`` tells when the status last changed; leases come and go
without touching it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from s3seg.errors import InsufficientCreditsError, LeaseLostError
from s3seg.tasks.model import Attempts, Failure, Lease, Order, Outcome, Task, TaskStatus

_PENDING, _PROCESSING, _DONE, _ERROR = (
    TaskStatus.PENDING,
    TaskStatus.PROCESSING,
    TaskStatus.DONE,
    TaskStatus.ERROR,
)
MAX_MESSAGE_CHARS = 500
"""Length of an error message; longer ones are cut."""


class Event(StrEnum):
    """What can happen to a task that exists."""

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
"""Every legal move; what is not here cannot happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The machine's numbers.

    Attributes:
        max_attempts: Claims of a task that may end without a result (released ones not counted).
        deadline_s: Seconds from acceptance to the end, whatever happens.
    """

    max_attempts: int = 3
    deadline_s: float = 900.0


def admit(
    order: Order,
    *,
    task_id: str,
    user_id: str,
    image_id: str,
    credits: int,
    rules: Rules,
    now: datetime,
) -> Task:
    """Accept an order whose image and project were found to be the user's; the caller debits ``task.cost``.

    Raises:
        InsufficientCreditsError: If ``credits`` does not cover one credit a prompt.
    """
    if credits < len(order.prompts):
        raise InsufficientCreditsError(f"the task costs {len(order.prompts)} credits, the account has {credits}")
    return Task(
        task_id=task_id,
        user_id=user_id,
        project_id=order.project_id,
        image_id=image_id,
        source_image_url=order.image_url,
        prompts=order.prompts,
        status=_PENDING,
        created_at=now,
        updated_at=now,
        deadline=now + timedelta(seconds=rules.deadline_s),
    )


def claimable(task: Task, *, rules: Rules, now: datetime) -> bool:
    """Whether a worker may claim the task now."""
    return (
        not task.ended and now < task.deadline and task.attempts.counted < rules.max_attempts and _lease_over(task, now)
    )


def claim(task: Task, *, worker: str, lease_s: float, rules: Rules, now: datetime) -> Task | None:
    """Give the task to a worker under a new attempt number, or None if it may not be claimed."""
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
    """The lease of a task that is held.

    Raises:
        LeaseLostError: If nobody holds it.
    """
    attempts = task.attempts
    if attempts.worker is None or attempts.expires_at is None:
        raise LeaseLostError(f"nobody holds task {task.task_id}")
    return Lease(
        task_id=task.task_id,
        worker=attempts.worker,
        attempt=attempts.number,
        expires_at=attempts.expires_at,
    )


def renew(task: Task, lease: Lease, *, lease_s: float, now: datetime) -> Task:
    """Extend the current attempt's lease.

    Raises:
        LeaseLostError: If the lease is not the current attempt's, or the deadline has passed.
    """
    _require_current(task, lease)
    if now >= task.deadline:
        raise LeaseLostError(f"task {task.task_id} is past its deadline")
    return _move(task, Event.RENEW, now, attempts=replace(task.attempts, expires_at=_lease_end(task, now, lease_s)))


def release(task: Task, lease: Lease, *, now: datetime) -> Task:
    """Give the task back unharmed, for others to claim at once; the attempt does not count.

    Raises:
        LeaseLostError: If the lease is not the current attempt's.
    """
    _require_current(task, lease)
    attempts = replace(task.attempts, released=task.attempts.released + 1, worker=None, expires_at=now)
    return _move(task, Event.RELEASE, now, attempts=attempts)


def finish(task: Task, lease: Lease, outcome: Outcome, *, now: datetime) -> Task:
    """End the task with its result.

    Raises:
        LeaseLostError: If the lease is not the current attempt's; what it stored must be deleted.
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
    """End the attempt without a result: for a retry if there is one left, else the task is in error.

    Args:
        task: The task as it is.
        lease: The attempt's lease.
        failure: Why; kept if the task ends.
        retry_after_s: Seconds before another attempt makes sense, or None if none does.
        rules: The machine's numbers.
        now: The time.

    Raises:
        LeaseLostError: If the lease is not the current attempt's.
    """
    _require_current(task, lease)
    if retry_after_s is not None and task.attempts.counted < rules.max_attempts:
        attempts = replace(task.attempts, worker=None, expires_at=_lease_end(task, now, retry_after_s))
        return _move(task, Event.RETRY, now, attempts=attempts)
    return _end_in_error(task, Event.FAIL, failure, now)


def cancel(task: Task, *, now: datetime) -> Task:
    """End the task at its owner's wish; one that has ended stays as it is."""
    if task.ended:
        return task
    return _end_in_error(task, Event.CANCEL, Failure(code="CANCELLED", message="cancelled"), now)


def reap(task: Task, *, rules: Rules, now: datetime) -> Task | None:
    """End a task that nobody will finish any more, or None if there is hope."""
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
    """Credits to give back for a move: the task's cost the moment it falls into error, else 0."""
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
        # a clock that was set back must not make a task younger than it was
        changes["updated_at"] = max(now, task.updated_at)
    return replace(task, status=status, **changes)

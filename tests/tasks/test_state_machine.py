import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from s3seg.errors import InsufficientCreditsError, LeaseLostError
from s3seg.tasks import state_machine
from s3seg.tasks.model import Attempts, Failure, Lease, Outcome, Task, TaskRequest, TaskStatus
from s3seg.tasks.state_machine import TRANSITIONS, Event, Rules

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULES = Rules(max_attempts=3, deadline_s=900)
FAILURE = Failure(code="INFERENCE_FAILED", message="no")
OUTCOME = Outcome(mask_image_url="https://x/m.png", labels=("cat",), metadata={}, object_keys=("b", "a"))


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def submitted(**changes) -> Task:
    request = TaskRequest(image_url="https://x/i.png", prompts=("cat", "dog"))
    task = state_machine.admit(request, task_id="t", user_id="u", image_id="i", credits=2, rules=RULES, now=NOW)
    return replace(task, **changes)


def in_status(status: TaskStatus) -> tuple[Task, Lease]:
    """Return a task with this status, and the lease that its current attempt has or would have."""
    lease = Lease(task_id="t", worker="w", attempt=1, expires_at=later(30))
    held = Attempts(number=1, worker="w", expires_at=lease.expires_at)
    match status:
        case TaskStatus.PENDING:
            return submitted(), lease
        case TaskStatus.PROCESSING:
            return submitted(status=status, attempts=held), lease
        case TaskStatus.DONE:
            return submitted(status=status, mask_image_url="https://x/m.png"), lease
        case TaskStatus.ERROR:
            return submitted(status=status, error_code="X", error_message="x"), lease


def happen(event: Event, task: Task, lease: Lease) -> Task | None:
    """Apply an event under conditions that allow it, apart from the status."""
    now = later(1)
    match event:
        case Event.CLAIM:
            free = replace(task, attempts=replace(task.attempts, expires_at=None))
            return state_machine.claim(free, worker="v", lease_s=30, rules=RULES, now=now)
        case Event.RENEW:
            return state_machine.renew(task, lease, lease_s=30, now=now)
        case Event.RELEASE:
            return state_machine.release(task, lease, now=now)
        case Event.RETRY:
            return state_machine.fail(task, lease, FAILURE, retry_after_s=0, rules=RULES, now=now)
        case Event.FINISH:
            return state_machine.finish(task, lease, OUTCOME, now=now)
        case Event.FAIL:
            return state_machine.fail(task, lease, FAILURE, retry_after_s=None, rules=RULES, now=now)
        case Event.CANCEL:
            return state_machine.cancel(task, now=now)
        case Event.REAP:
            return state_machine.reap(task, rules=RULES, now=later(900))


@pytest.mark.parametrize(("status", "event"), list(product(TaskStatus, Event)))
def test_exactly_the_transitions_in_the_table_are_possible(status, event):
    task, lease = in_status(status)
    expected = TRANSITIONS.get((status, event))
    try:
        after = happen(event, task, lease)
    except LeaseLostError:
        assert expected is None
        return
    if expected is None:
        assert after is None or after == task  # cancelling a task that has ended returns it unchanged
    else:
        assert after is not None
        assert after.status == expected


def test_the_table_in_the_docstring_matches_the_code():
    rows = re.findall(r"^    (pending|processing) +(\w+) +(\w+)  ", state_machine.__doc__ or "", re.MULTILINE)
    written = {(TaskStatus(start), Event(event)): TaskStatus(end) for start, event, end in rows}
    assert written == TRANSITIONS


def test_no_transition_leads_backwards_or_out_of_a_final_status():
    order = [TaskStatus.PENDING, TaskStatus.PROCESSING, TaskStatus.DONE]
    for (start, _), end in TRANSITIONS.items():
        assert start in order[:2]
        assert end == TaskStatus.ERROR or order.index(end) >= order.index(start)


def test_credits_are_refunded_exactly_when_a_task_enters_error():
    for (start, event), end in TRANSITIONS.items():
        task, lease = in_status(start)
        after = happen(event, task, lease)
        assert after is not None
        assert state_machine.refund(task, after) == (2 if end == TaskStatus.ERROR else 0)
        assert state_machine.refund(after, after) == 0


def test_a_task_costs_one_credit_per_prompt():
    request = TaskRequest(image_url="x", prompts=("a", "b", "c"))
    with pytest.raises(InsufficientCreditsError, match="costs 3 credits, the account has 2"):
        state_machine.admit(request, task_id="t", user_id="u", image_id="i", credits=2, rules=RULES, now=NOW)


def test_an_ended_task_has_no_lease_and_sorted_object_keys():
    task, lease = in_status(TaskStatus.PROCESSING)
    done = state_machine.finish(task, lease, OUTCOME, now=later(1))
    assert done.attempts == Attempts()
    assert done.object_keys == ("a", "b")
    with pytest.raises(LeaseLostError):
        state_machine.lease_of(done)


def test_updated_at_does_not_go_backwards_with_the_clock():
    task, lease = in_status(TaskStatus.PROCESSING)
    done = state_machine.finish(task, lease, OUTCOME, now=later(-3600))
    assert done.updated_at == task.updated_at


def test_a_lease_ends_at_the_deadline_at_the_latest():
    claimed = state_machine.claim(submitted(), worker="w", lease_s=3600, rules=RULES, now=later(10))
    assert claimed is not None
    assert state_machine.lease_of(claimed).expires_at == later(900)

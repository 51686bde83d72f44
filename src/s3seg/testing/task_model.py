"""A stateful model of tasks: hypothesis runs random actions of users, workers and operators in any order.

Subclass `TaskModel`, implement `TaskModel.new_harness`, and give its ``TestCase`` to pytest::

    class MyTaskModel(TaskModel):
        async def new_harness(self):
            return MyHarness()

    TestMyTasks = MyTaskModel.TestCase

The model does not use `s3seg.tasks.state_machine`, so that it can serve as an oracle for it. After every step it
checks that no accepted task is lost, no task finishes twice, no stale attempt succeeds, every balance equals the sum
of its ledger, and no balance is negative.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from s3seg.errors import InsufficientCreditsError, InvalidRequestError, LeaseLostError, NotFoundError
from s3seg.tasks.model import Claim, Failure, Lease, TaskRequest
from s3seg.tasks.records import Identity, StoredImage
from s3seg.testing.harness import TaskHarness, outcome_for

_T = TypeVar("_T")
_LEASE_S = 30.0
_PICK = st.integers(0, 10_000)  # an index, modulo the number of items
_WORKER = st.sampled_from(["w1", "w2", "w3"])
# odd hundredths of a second, so that no sum of steps equals a lease or a deadline exactly
_STEP = st.sampled_from([0.01, 7.03, 13.11, 31.07, 301.17, 901.19])


@dataclass
class _Expected:
    """The expected state of one task."""

    owner: int
    cost: int
    born: float
    key: str | None
    prompts: tuple[str, ...]
    status: str = "pending"
    attempt: int = 0
    uncounted: int = 0
    holder: str | None = None
    free_at: float = 0.0
    mask: str = ""

    @property
    def live(self) -> bool:
        return self.status in ("pending", "processing")


@dataclass
class _User:
    identity: Identity
    image: StoredImage
    balance: int
    keys: dict[str, str] = field(default_factory=dict)  # idempotency key -> task


class TaskModel(RuleBasedStateMachine):
    """All actions on tasks, and their expected results."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._now = 0.0
        self._tasks: dict[str, _Expected] = {}
        self._deleted: set[str] = set()
        self._leases: list[Lease] = []  # all leases ever given, since a stalled worker may come back
        self._finished: dict[str, int] = {}
        self._users: list[_User] = []

    @abstractmethod
    async def new_harness(self) -> TaskHarness:
        """Create a harness without any data."""

    async def close_harness(self, harness: TaskHarness) -> None:
        """Close the adapters of a harness."""
        for part in (harness.store, harness.queue, harness.accounts):
            await part.aclose()

    def _do(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(coroutine)

    @initialize()
    def begin(self) -> None:
        """Create two users with few credits."""
        self._harness = self._do(self.new_harness())
        for credits in (6, 3):
            identity = self._do(self._harness.user(credits=credits))
            image = self._do(self._harness.image(identity))
            self._users.append(_User(identity, image, credits))

    # --- users

    @rule(who=_PICK, prompts=st.integers(1, 3), key=st.sampled_from([None, None, "k1", "k2"]))
    def submit(self, who: int, prompts: int, key: str | None) -> None:
        """Submit a task: it is accepted if there are enough credits, and a repeated key is debited once."""
        number = who % len(self._users)
        user, words = self._users[number], tuple(f"p{n}" for n in range(prompts))
        request = TaskRequest(image_url=user.image.image_url, prompts=words, idempotency_key=key)
        known = user.keys.get(key) if key else None
        attempt = self._harness.store.submit(user.identity, request)
        if known is not None:
            if self._tasks[known].prompts != words:
                self._refused(attempt, InvalidRequestError)
            else:
                repeat = self._do(attempt)
                assert (repeat.created, repeat.task.task_id) == (False, known)
        elif user.balance < prompts:
            self._refused(attempt, InsufficientCreditsError)
        else:
            task = self._do(attempt).task
            assert task.task_id not in self._tasks
            user.balance -= prompts
            self._tasks[task.task_id] = _Expected(number, prompts, self._now, key, words)
            if key:
                user.keys[key] = task.task_id

    @precondition(lambda self: self._tasks)
    @rule(which=_PICK, who=_PICK, forget=st.booleans())
    def cancel_or_delete(self, which: int, who: int, forget: bool) -> None:
        """Cancel or delete a task: only its owner can, and a task that has not ended is refunded."""
        task_id, expected = self._pick(which)
        number = who % len(self._users)
        store, caller = self._harness.store, self._users[number].identity
        attempt = store.delete_task(caller, task_id) if forget else store.cancel(caller, task_id)
        if number != expected.owner:
            self._refused(attempt, NotFoundError)
            return
        self._do(attempt)
        self._end_in_error(expected)
        if forget:
            del self._tasks[task_id]
            self._deleted.add(task_id)
            if expected.key:
                del self._users[number].keys[expected.key]

    @precondition(lambda self: self._tasks)
    @rule(which=_PICK)
    def look(self, which: int) -> None:
        """Read a task by its id: only its owner can."""
        task_id, expected = self._pick(which)
        for number, user in enumerate(self._users):
            attempt = self._harness.store.get_task(user.identity, task_id)
            if number != expected.owner:
                self._refused(attempt, NotFoundError)
            else:
                assert self._do(attempt).status.value == expected.status

    # --- workers

    @precondition(lambda self: self._tasks)
    @rule(which=_PICK, worker=_WORKER)
    def claim(self, which: int, worker: str) -> None:
        """Claim a task: succeeds exactly if it is not held, before its deadline, and has attempts left."""
        task_id, expected = self._pick(which)
        claim = self._do(self._harness.queue.claim(worker, task_id, lease_s=_LEASE_S))
        assert (claim is not None) == self._claimable(expected)
        if claim is not None:
            self._note_claim(claim, worker)

    @precondition(lambda self: self._tasks)
    @rule(which=_PICK, worker=_WORKER, times=st.integers(1, 4))
    def claim_and_crash(self, which: int, worker: str, times: int) -> None:
        """Let one worker after another crash on a task, until its attempts are used up."""
        for _ in range(times):
            self.claim(which, worker)
            self.pass_time(31.07)

    @rule(worker=_WORKER, limit=st.integers(1, 4))
    def claim_batch(self, worker: str, limit: int) -> None:
        """Claim a batch: returns the oldest tasks that can be claimed."""
        free = {task_id for task_id, expected in self._tasks.items() if self._claimable(expected)}
        claims = self._do(self._harness.queue.claim_batch(worker, limit=limit, lease_s=_LEASE_S))
        taken = {claim.task.task_id for claim in claims}
        assert len(taken) == len(claims) == min(limit, len(free))
        assert taken <= free
        left = free - taken
        if taken and left:
            assert max(self._tasks[t].born for t in taken) <= min(self._tasks[t].born for t in left)
        for claim in claims:
            self._note_claim(claim, worker)

    @precondition(lambda self: self._leases)
    @rule(which=_PICK)
    def renew(self, which: int) -> None:
        """Renew a lease: only the current attempt can, before the deadline."""
        lease, expected = self._pick_lease(which)
        attempt = self._harness.queue.renew(lease, lease_s=_LEASE_S)
        if expected is None or self._now >= self._deadline(expected):
            self._refused(attempt, LeaseLostError)
        else:
            self._do(attempt)
            expected.free_at = min(self._now + _LEASE_S, self._deadline(expected))

    @precondition(lambda self: self._leases)
    @rule(which=_PICK)
    def release(self, which: int) -> None:
        """Release a task: the attempt is not counted; a stale lease changes nothing."""
        lease, expected = self._pick_lease(which)
        self._do(self._harness.queue.release(lease))
        if expected is not None:
            expected.holder, expected.free_at = None, self._now
            expected.uncounted += 1

    @precondition(lambda self: self._leases)
    @rule(which=_PICK)
    def finish(self, which: int) -> None:
        """Finish a task: only the current attempt can, and only once."""
        lease, expected = self._pick_lease(which)
        if expected is None:
            task = self._task_of(lease)
            self._refused(self._harness.queue.finish(lease, outcome_for(task)), LeaseLostError)
            return
        task = self._do(self._harness.queue.get_task(lease.task_id))
        outcome = outcome_for(task)
        self._do(self._harness.queue.finish(lease, outcome))
        expected.status, expected.holder, expected.mask = "done", None, outcome.mask_image_url
        self._finished[lease.task_id] = self._finished.get(lease.task_id, 0) + 1

    @precondition(lambda self: self._leases)
    @rule(which=_PICK, retry_after_s=st.sampled_from([None, 0.0, 20.0]))
    def fail(self, which: int, retry_after_s: float | None) -> None:
        """Fail a task: only the current attempt can; the last one ends the task with a refund."""
        lease, expected = self._pick_lease(which)
        failure = Failure(code="INFERENCE_FAILED", message="no memory")
        attempt = self._harness.queue.fail(lease, failure, retry_after_s=retry_after_s)
        if expected is None:
            self._refused(attempt, LeaseLostError)
            return
        self._do(attempt)
        used = expected.attempt - expected.uncounted
        if retry_after_s is None or used >= self._harness.rules.max_attempts:
            self._end_in_error(expected)
        else:
            expected.holder = None
            expected.free_at = min(self._now + retry_after_s, self._deadline(expected))

    # --- time and operators

    @rule(seconds=_STEP)
    def pass_time(self, seconds: float) -> None:
        """Move the clock, so that leases expire and deadlines pass."""
        self._do(self._harness.pass_time(seconds))
        self._now += seconds

    @precondition(lambda self: self._tasks and self._leases)
    @rule(which=_PICK, worker=_WORKER)
    def act_after_the_deadline(self, which: int, worker: str) -> None:
        """Try to claim and renew a task after its deadline, before it is reaped."""
        self.claim(which, worker)
        self.pass_time(901.19)
        self.claim(which, worker)
        self.renew(len(self._leases) - 1)

    @rule()
    def reap(self) -> None:
        """Reap: ends exactly the tasks that are past their deadline or out of attempts."""
        expired = {
            task_id
            for task_id, expected in self._tasks.items()
            if expected.live and (self._now >= self._deadline(expected) or self._out_of_attempts(expected))
        }
        ended = self._do(self._harness.queue.reap())
        assert {task.task_id for task in ended} == expired
        for task_id in expired:
            self._end_in_error(self._tasks[task_id])

    @rule(who=_PICK, delta=st.integers(-4, 4))
    def adjust(self, who: int, delta: int) -> None:
        """Adjust credits: succeeds if the balance does not become negative."""
        user = self._users[who % len(self._users)]
        attempt = self._harness.accounts.adjust(user.identity.user_id, delta)
        if user.balance + delta < 0:
            self._refused(attempt, InvalidRequestError)
        else:
            user.balance += delta
            assert self._do(attempt).credits == user.balance

    # --- invariants

    @invariant()
    def balances_match(self) -> None:
        """Balance, ledger and model agree, and no balance is negative."""
        for user in self._users:
            assert self._do(self._harness.credits(user.identity)) == user.balance >= 0

    @invariant()
    def no_task_is_lost_or_changed(self) -> None:
        """Every accepted task exists, in the expected state."""
        for number, user in enumerate(self._users):
            mine = {task_id: one for task_id, one in self._tasks.items() if one.owner == number}
            page = self._do(self._harness.store.list_tasks(user.identity, limit=100))
            assert page.total == len(mine)
            seen = {task.task_id: task for task in page.tasks}
            assert len(seen) == len(page.tasks) == min(100, len(mine))
            for task_id, task in seen.items():
                assert task.status.value == mine[task_id].status
                assert task.mask_image_url == mine[task_id].mask
        assert all(times == 1 for times in self._finished.values())

    def teardown(self) -> None:
        """Check that in the end every task is done, or in error and refunded."""
        if self._users:
            self._do(self._harness.pass_time(self._harness.rules.deadline_s + 1))
            self._now += self._harness.rules.deadline_s + 1
            self.reap()
            assert not any(expected.live for expected in self._tasks.values())
            self.balances_match()
            self.no_task_is_lost_or_changed()
            self._do(self.close_harness(self._harness))
        self._runner.close()

    # --- the expected behaviour

    def _pick(self, which: int) -> tuple[str, _Expected]:
        return list(self._tasks.items())[which % len(self._tasks)]

    def _pick_lease(self, which: int) -> tuple[Lease, _Expected | None]:
        """Return some lease, and the expected task if the lease is that of the current attempt."""
        lease = self._leases[which % len(self._leases)]
        expected = self._tasks.get(lease.task_id)
        current = (
            expected is not None
            and expected.live
            and (expected.attempt, expected.holder) == (lease.attempt, lease.worker)
        )
        return lease, expected if current else None

    def _task_of(self, lease: Lease) -> Any:
        if lease.task_id not in self._deleted:
            return self._do(self._harness.queue.get_task(lease.task_id))
        return _DeletedTask(lease.task_id, self._users[0].identity.user_id)

    def _deadline(self, expected: _Expected) -> float:
        return expected.born + self._harness.rules.deadline_s

    def _out_of_attempts(self, expected: _Expected) -> bool:
        used = expected.attempt - expected.uncounted
        return used >= self._harness.rules.max_attempts and expected.free_at <= self._now

    def _claimable(self, expected: _Expected) -> bool:
        return (
            expected.live
            and expected.attempt - expected.uncounted < self._harness.rules.max_attempts
            and expected.free_at <= self._now < self._deadline(expected)
        )

    def _note_claim(self, claim: Claim, worker: str) -> None:
        expected = self._tasks[claim.task.task_id]
        expected.attempt += 1
        expected.status, expected.holder = "processing", worker
        expected.free_at = min(self._now + _LEASE_S, self._deadline(expected))
        assert (claim.lease.attempt, claim.lease.worker) == (expected.attempt, worker)
        self._leases.append(claim.lease)

    def _end_in_error(self, expected: _Expected) -> None:
        if expected.live:
            expected.status, expected.holder = "error", None
            self._users[expected.owner].balance += expected.cost

    def _refused(self, attempt: Coroutine[Any, Any, Any], kind: type[Exception]) -> None:
        try:
            self._do(attempt)
        except kind:
            return
        raise AssertionError(f"expected {kind.__name__}")


@dataclass(frozen=True)
class _DeletedTask:
    """The fields of a deleted task that an outcome needs."""

    task_id: str
    user_id: str
    prompts: tuple[str, ...] = ("p0",)

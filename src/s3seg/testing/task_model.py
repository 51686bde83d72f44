"""A stateful model of tasks: hypothesis makes users, workers, operators and time do anything, in any order.

Subclass `TaskModel`, say how a world is made, and hand its ``TestCase`` to pytest::

    class MyTaskModel(TaskModel):
        async def new_world(self):
            return MyWorld()

    TestMyTasks = MyTaskModel.TestCase

The model is written apart from `s3seg.tasks.state_machine`, in the plainest terms, so that it is an oracle for it.
After every step it holds the world to this: no accepted task is lost, none finishes twice, no stale attempt
wins, each ledger sums to its balance, and no balance is negative.
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
from s3seg.tasks.model import Claim, Failure, Lease, Order
from s3seg.tasks.records import Identity, StoredImage
from s3seg.testing.world import TaskWorld, outcome_for

_T = TypeVar("_T")
_LEASE_S = 30.0
_PICK = st.integers(0, 10_000)  # an index, taken modulo what there is
_WORKER = st.sampled_from(["w1", "w2", "w3"])
# hundredths that never add up to a whole bound, so that nothing happens just at a limit
_STEP = st.sampled_from([0.01, 7.03, 13.11, 31.07, 301.17, 901.19])


@dataclass
class _Expected:
    """What the model believes of one task."""

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
    """Everything that can happen to tasks, and what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._now = 0.0
        self._tasks: dict[str, _Expected] = {}
        self._deleted: set[str] = set()
        self._leases: list[Lease] = []  # every lease ever given: a crashed worker may come back
        self._finished: dict[str, int] = {}
        self._users: list[_User] = []

    @abstractmethod
    async def new_world(self) -> TaskWorld:
        """A world that nobody has used."""

    async def close_world(self, world: TaskWorld) -> None:
        """Take a world down."""
        for part in (world.store, world.queue, world.accounts):
            await part.aclose()

    def _do(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(coroutine)

    @initialize()
    def begin(self) -> None:
        """Two users with few credits."""
        self._world = self._do(self.new_world())
        for credits in (6, 3):
            identity = self._do(self._world.user(credits=credits))
            image = self._do(self._world.image(identity))
            self._users.append(_User(identity, image, credits))

    # --- users

    @rule(who=_PICK, prompts=st.integers(1, 3), key=st.sampled_from([None, None, "k1", "k2"]))
    def submit(self, who: int, prompts: int, key: str | None) -> None:
        """Accepted if paid for; a known key never pays twice."""
        number = who % len(self._users)
        user, words = self._users[number], tuple(f"p{n}" for n in range(prompts))
        order = Order(image_url=user.image.image_url, prompts=words, idempotency_key=key)
        known = user.keys.get(key) if key else None
        attempt = self._world.store.submit(user.identity, order)
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
        """By the owner only; a live task is refunded."""
        task_id, expected = self._pick(which)
        number = who % len(self._users)
        store, caller = self._world.store, self._users[number].identity
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
        """The owner sees it by its id, nobody else does."""
        task_id, expected = self._pick(which)
        for number, user in enumerate(self._users):
            attempt = self._world.store.get_task(user.identity, task_id)
            if number != expected.owner:
                self._refused(attempt, NotFoundError)
            else:
                assert self._do(attempt).status.value == expected.status

    # --- workers

    @precondition(lambda self: self._tasks)
    @rule(which=_PICK, worker=_WORKER)
    def claim(self, which: int, worker: str) -> None:
        """Given exactly when the task is free, in time and has attempts left."""
        task_id, expected = self._pick(which)
        claim = self._do(self._world.queue.claim(worker, task_id, lease_s=_LEASE_S))
        assert (claim is not None) == self._claimable(expected)
        if claim is not None:
            self._note_claim(claim, worker)

    @precondition(lambda self: self._tasks)
    @rule(which=_PICK, worker=_WORKER, times=st.integers(1, 4))
    def claim_and_crash(self, which: int, worker: str, times: int) -> None:
        """Workers die on one task, one after another, until its attempts are used up."""
        for _ in range(times):
            self.claim(which, worker)
            self.pass_time(31.07)

    @rule(worker=_WORKER, limit=st.integers(1, 4))
    def claim_batch(self, worker: str, limit: int) -> None:
        """As many as may be claimed, the oldest."""
        free = {task_id for task_id, expected in self._tasks.items() if self._claimable(expected)}
        claims = self._do(self._world.queue.claim_batch(worker, limit=limit, lease_s=_LEASE_S))
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
        """Only the current attempt, before the deadline."""
        lease, expected = self._pick_lease(which)
        attempt = self._world.queue.renew(lease, lease_s=_LEASE_S)
        if expected is None or self._now >= self._deadline(expected):
            self._refused(attempt, LeaseLostError)
        else:
            self._do(attempt)
            expected.free_at = min(self._now + _LEASE_S, self._deadline(expected))

    @precondition(lambda self: self._leases)
    @rule(which=_PICK)
    def release(self, which: int) -> None:
        """The attempt is as if it had not been; a stale one does nothing."""
        lease, expected = self._pick_lease(which)
        self._do(self._world.queue.release(lease))
        if expected is not None:
            expected.holder, expected.free_at = None, self._now
            expected.uncounted += 1

    @precondition(lambda self: self._leases)
    @rule(which=_PICK)
    def finish(self, which: int) -> None:
        """Only the current attempt, and once."""
        lease, expected = self._pick_lease(which)
        if expected is None:
            task = self._any_task_like(lease)
            self._refused(self._world.queue.finish(lease, outcome_for(task)), LeaseLostError)
            return
        task = self._do(self._world.queue.get_task(lease.task_id))
        outcome = outcome_for(task)
        self._do(self._world.queue.finish(lease, outcome))
        expected.status, expected.holder, expected.mask = "done", None, outcome.mask_image_url
        self._finished[lease.task_id] = self._finished.get(lease.task_id, 0) + 1

    @precondition(lambda self: self._leases)
    @rule(which=_PICK, retry_after_s=st.sampled_from([None, 0.0, 20.0]))
    def fail(self, which: int, retry_after_s: float | None) -> None:
        """Only the current attempt; the last one ends the task, refunded."""
        lease, expected = self._pick_lease(which)
        failure = Failure(code="INFERENCE_FAILED", message="no memory")
        attempt = self._world.queue.fail(lease, failure, retry_after_s=retry_after_s)
        if expected is None:
            self._refused(attempt, LeaseLostError)
            return
        self._do(attempt)
        used = expected.attempt - expected.uncounted
        if retry_after_s is None or used >= self._world.rules.max_attempts:
            self._end_in_error(expected)
        else:
            expected.holder = None
            expected.free_at = min(self._now + retry_after_s, self._deadline(expected))

    # --- time and operators

    @rule(seconds=_STEP)
    def pass_time(self, seconds: float) -> None:
        """Leases expire, deadlines come; a crashed worker is one whose lease nobody uses any more."""
        self._do(self._world.pass_time(seconds))
        self._now += seconds

    @precondition(lambda self: self._tasks and self._leases)
    @rule(which=_PICK, worker=_WORKER)
    def come_too_late(self, which: int, worker: str) -> None:
        """After the deadline nothing can be claimed or renewed, though nobody has reaped."""
        self.claim(which, worker)
        self.pass_time(901.19)
        self.claim(which, worker)
        self.renew(len(self._leases) - 1)

    @rule()
    def reap(self) -> None:
        """Ends exactly the hopeless."""
        hopeless = {
            task_id
            for task_id, expected in self._tasks.items()
            if expected.live and (self._now >= self._deadline(expected) or self._spent(expected))
        }
        ended = self._do(self._world.queue.reap())
        assert {task.task_id for task in ended} == hopeless
        for task_id in hopeless:
            self._end_in_error(self._tasks[task_id])

    @rule(who=_PICK, delta=st.integers(-4, 4))
    def adjust(self, who: int, delta: int) -> None:
        """Operators move credits too, but not below zero."""
        user = self._users[who % len(self._users)]
        attempt = self._world.accounts.adjust(user.identity.user_id, delta)
        if user.balance + delta < 0:
            self._refused(attempt, InvalidRequestError)
        else:
            user.balance += delta
            assert self._do(attempt).credits == user.balance

    # --- what must always hold

    @invariant()
    def books_balance(self) -> None:
        """Balance, ledger and the model agree; nobody owes."""
        for user in self._users:
            assert self._do(self._world.credits(user.identity)) == user.balance >= 0

    @invariant()
    def no_task_is_lost_or_changed(self) -> None:
        """Every accepted task is there, in the state it should be in."""
        for number, user in enumerate(self._users):
            mine = {task_id: one for task_id, one in self._tasks.items() if one.owner == number}
            page = self._do(self._world.store.list_tasks(user.identity, limit=100))
            assert page.total == len(mine)
            seen = {task.task_id: task for task in page.tasks}
            assert len(seen) == len(page.tasks) == min(100, len(mine))
            for task_id, task in seen.items():
                assert task.status.value == mine[task_id].status
                assert task.mask_image_url == mine[task_id].mask
        assert all(times == 1 for times in self._finished.values())

    def teardown(self) -> None:
        """In the end every task is done, or in error and refunded."""
        if self._users:
            self._do(self._world.pass_time(self._world.rules.deadline_s + 1))
            self._now += self._world.rules.deadline_s + 1
            self.reap()
            assert not any(expected.live for expected in self._tasks.values())
            self.books_balance()
            self.no_task_is_lost_or_changed()
            self._do(self.close_world(self._world))
        self._runner.close()

    # --- the model's own rules

    def _pick(self, which: int) -> tuple[str, _Expected]:
        return list(self._tasks.items())[which % len(self._tasks)]

    def _pick_lease(self, which: int) -> tuple[Lease, _Expected | None]:
        """Any lease ever given, and its task if the lease is still the current attempt's."""
        lease = self._leases[which % len(self._leases)]
        expected = self._tasks.get(lease.task_id)
        current = (
            expected is not None
            and expected.live
            and (expected.attempt, expected.holder) == (lease.attempt, lease.worker)
        )
        return lease, expected if current else None

    def _any_task_like(self, lease: Lease) -> Any:
        if lease.task_id not in self._deleted:
            return self._do(self._world.queue.get_task(lease.task_id))
        return _Gone(lease.task_id, self._users[0].identity.user_id)

    def _deadline(self, expected: _Expected) -> float:
        return expected.born + self._world.rules.deadline_s

    def _spent(self, expected: _Expected) -> bool:
        used = expected.attempt - expected.uncounted
        return used >= self._world.rules.max_attempts and expected.free_at <= self._now

    def _claimable(self, expected: _Expected) -> bool:
        return (
            expected.live
            and expected.attempt - expected.uncounted < self._world.rules.max_attempts
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
        raise AssertionError(f"should have been refused with {kind.__name__}")


@dataclass(frozen=True)
class _Gone:
    """As much of a deleted task as an outcome needs."""

    task_id: str
    user_id: str
    prompts: tuple[str, ...] = ("p0",)

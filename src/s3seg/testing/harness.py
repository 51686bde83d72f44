"""The harness of the task suites: task store, task queue and accounts on the same data, with a movable clock."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Lease, Outcome, Task, TaskRequest
from s3seg.tasks.object_keys import new_image_key, new_result_key, public_url
from s3seg.tasks.ports import Accounts, TaskQueue, TaskStore
from s3seg.tasks.records import Identity, NewImage, StoredImage
from s3seg.tasks.state_machine import Rules
from s3seg.tasks.webhooks import WebhookOutbox, Webhooks

PUBLIC_BASE = "https://objects.example/files"
"""The public base URL with which the adapters of a harness must be configured."""


class AsyncSuite:
    """Base class of the suites; runs coroutine tests on asyncio with the pytest plugin of anyio."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run the tests on asyncio only."""
        return "asyncio"


class TaskHarness(ABC):
    """The adapters under test, and helpers that set up users, images and tasks.

    Subclass it, set the attributes, and implement `new_identity` and `pass_time`.

    Attributes:
        store, queue, accounts: The adapters, on the same data, with `PUBLIC_BASE` as the public base URL.
        rules: The rules with which the adapters are configured.
        webhooks, outbox: The adapters of webhooks, on the same data; only for `WebhookSuite`.
    """

    store: TaskStore
    queue: TaskQueue
    accounts: Accounts
    rules: Rules
    webhooks: Webhooks
    outbox: WebhookOutbox

    @abstractmethod
    async def new_identity(self, *, tier: Tier, anonymous: bool = False) -> Identity:
        """Create a new user, and return the identity that an authenticator would return for them."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Move the clock of the adapters forward by ``seconds``, or make all stored times older by as much."""

    async def set_retention(self, seconds: int | None) -> None:
        """Set the time after which images and results end at the latest, as an operator does; for `RetentionSuite`."""
        raise NotImplementedError

    async def user(self, *, tier: Tier = Tier.ENTERPRISE, credits: int = 10) -> Identity:
        """Create a user with exactly this many credits."""
        identity = await self.new_identity(tier=tier)
        account = await self.accounts.ensure(identity.user_id, tier=tier)
        if account.credits != credits:
            await self.accounts.adjust(identity.user_id, credits - account.credits)
        return identity

    async def image(self, caller: Identity, *, project_id: str | None = None, keep_s: int | None = None) -> StoredImage:
        """Register an image."""
        return await self.store.register_image(
            caller,
            NewImage(
                object_key=new_image_key(caller.user_id, "image/png"),
                content_type="image/png",
                size_bytes=123,
                width=4,
                height=3,
                project_id=project_id,
                keep_s=keep_s,
            ),
        )

    async def submit(
        self,
        caller: Identity,
        *,
        prompts: tuple[str, ...] = ("cat",),
        image: StoredImage | None = None,
        project_id: str | None = None,
        key: str | None = None,
        keep_s: int | None = None,
    ) -> Task:
        """Submit a task, with a new image if none is given."""
        image = image or await self.image(caller)
        request = TaskRequest(
            image_url=image.image_url, prompts=prompts, project_id=project_id, idempotency_key=key, keep_s=keep_s
        )
        return (await self.store.submit(caller, request)).task

    async def claim(self, task: Task, *, worker: str = "worker-1", lease_s: float = 30) -> Lease:
        """Claim a task that can be claimed, and return the lease."""
        claim = await self.queue.claim(worker, task.task_id, lease_s=lease_s)
        assert claim is not None, f"{task.task_id} could not be claimed"
        return claim.lease

    async def credits(self, caller: Identity) -> int:
        """Check that the caller's balance is the sum of their ledger, and return it."""
        account = await self.store.account(caller)
        ledger = await self.accounts.ledger(caller.user_id)
        assert account.credits == sum(entry.delta for entry in ledger)
        return account.credits


def outcome_for(task: Task) -> Outcome:
    """Return an outcome for a task, as a worker would report it, with new object keys."""
    mask = new_result_key(task.user_id, task.task_id, "image/png")
    instances = new_result_key(task.user_id, task.task_id, "application/json")
    return Outcome(
        mask_image_url=public_url(PUBLIC_BASE, mask),
        labels=task.prompts,
        metadata={"inference_time_ms": 12.5, "confidence": 0.75, "model_version": "test"},
        object_keys=(mask, instances),
    )

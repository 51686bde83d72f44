"""What the task suites stand on: store, queue and accounts on the same data, and time that can be moved."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Lease, Order, Outcome, Task
from s3seg.tasks.object_keys import new_image_key, new_result_key, public_url
from s3seg.tasks.ports import Accounts, TaskQueue, TaskStore
from s3seg.tasks.records import Identity, NewImage, StoredImage
from s3seg.tasks.state_machine import Rules

PUBLIC_BASE = "https://objects.example/files"
"""The public base that a world's adapters must be configured with."""


class AsyncSuite:
    """Runs a suite's coroutines on asyncio through anyio's pytest plugin."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Our adapters are asyncio's."""
        return "asyncio"


class TaskWorld(ABC):
    """One installation under test.

    Attributes:
        store, queue, accounts: The adapters, on the same data; public base `PUBLIC_BASE`.
        rules: As configured in them.
    """

    store: TaskStore
    queue: TaskQueue
    accounts: Accounts
    rules: Rules

    @abstractmethod
    async def new_identity(self, *, tier: Tier, anonymous: bool = False) -> Identity:
        """A user nobody has seen before, as the adapter's authenticator would name them."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Make everything stored older by ``seconds``: move the clock, or the stored times."""

    async def user(self, *, tier: Tier = Tier.ENTERPRISE, credits: int = 10) -> Identity:
        """A new user with exactly this many credits."""
        identity = await self.new_identity(tier=tier)
        account = await self.accounts.ensure(identity.user_id, tier=tier)
        if account.credits != credits:
            await self.accounts.adjust(identity.user_id, credits - account.credits)
        return identity

    async def image(self, caller: Identity, *, project_id: str | None = None) -> StoredImage:
        """A registered image."""
        return await self.store.register_image(
            caller,
            NewImage(
                object_key=new_image_key(caller.user_id, "image/png"),
                content_type="image/png",
                size_bytes=123,
                width=4,
                height=3,
                project_id=project_id,
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
    ) -> Task:
        """An accepted task."""
        image = image or await self.image(caller)
        order = Order(image_url=image.image_url, prompts=prompts, project_id=project_id, idempotency_key=key)
        return (await self.store.submit(caller, order)).task

    async def claim(self, task: Task, *, worker: str = "worker-1", lease_s: float = 30) -> Lease:
        """A lease on a task that may be claimed."""
        claim = await self.queue.claim(worker, task.task_id, lease_s=lease_s)
        assert claim is not None, f"{task.task_id} could not be claimed"
        return claim.lease

    async def credits(self, caller: Identity) -> int:
        """The caller's balance, after making sure that it is the sum of their ledger."""
        account = await self.store.account(caller)
        ledger = await self.accounts.ledger(caller.user_id)
        assert account.credits == sum(entry.delta for entry in ledger)
        return account.credits


def outcome_for(task: Task) -> Outcome:
    """A result as a worker would bring it, under fresh keys."""
    mask = new_result_key(task.user_id, task.task_id, "image/png")
    instances = new_result_key(task.user_id, task.task_id, "application/json")
    return Outcome(
        mask_image_url=public_url(PUBLIC_BASE, mask),
        labels=task.prompts,
        metadata={"inference_time_ms": 12.5, "confidence": 0.75, "model_version": "test"},
        object_keys=(mask, instances),
    )

"""An edge on in-memory adapters, with access to what workers and operators use."""

from __future__ import annotations

import uuid

from s3seg.adapters.memory import (
    MemoryAccounts,
    MemoryObjectStore,
    MemoryRateLimiter,
    MemoryTables,
    MemoryTaskQueue,
    MemoryTaskStore,
)
from s3seg.api.edge import SegmentRequest
from s3seg.edge import Edge, EdgeOptions, Upload
from s3seg.errors import AuthInvalidError
from s3seg.tasks.limits import RATE_LIMITS, RateTable, Tier
from s3seg.tasks.model import Task
from s3seg.tasks.records import Identity
from s3seg.testing.harness import outcome_for
from tests.helpers.pictures import encoded


class FakeAuthenticator:
    """Accepts the tokens of its users, and counts the calls."""

    def __init__(self) -> None:
        self.users: dict[str, Identity] = {}
        self.calls = 0

    async def authenticate(self, token: str) -> Identity:
        self.calls += 1
        if token not in self.users:
            raise AuthInvalidError("the token is not valid")
        return self.users[token]

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


class RecordingNotifier:
    """Records the ids of the tasks that workers are told about."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    async def wake(self, task: Task) -> None:
        self.woken.append(task.task_id)

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


class System:
    """An edge and the parts that it is made of, all in memory."""

    def __init__(self, *, rates: RateTable = RATE_LIMITS, options: EdgeOptions | None = None, **parts: object) -> None:
        self.tables = MemoryTables(rates=rates)
        self.objects = MemoryObjectStore()
        self.store = MemoryTaskStore(self.tables)
        self.queue = MemoryTaskQueue(self.tables)
        self.accounts = MemoryAccounts(self.tables)
        self.tokens = FakeAuthenticator()
        self.notifier = RecordingNotifier()
        chosen = {
            "objects": self.objects,
            "tasks": self.store,
            "authenticator": self.tokens,
            "limiter": MemoryRateLimiter(table=rates),
            "notifier": self.notifier,
        }
        self.edge = Edge(**{**chosen, **parts}, options=options)  # type: ignore[arg-type]

    async def user(self, *, tier: Tier = Tier.ENTERPRISE, credits: int = 10) -> Identity:
        identity = Identity(user_id=str(uuid.uuid4()), tier=tier, token=f"token-{len(self.tokens.users)}")
        self.tokens.users[identity.token] = identity
        await self.accounts.ensure(identity.user_id, tier=tier)
        await self.accounts.adjust(identity.user_id, credits - 10)
        return identity

    async def image_url(self, caller: Identity) -> str:
        return (await self.edge.upload(caller, Upload(data=encoded()))).image_url

    async def submit(self, caller: Identity, *prompts: str) -> Task:
        request = SegmentRequest(image_url=await self.image_url(caller), text_prompts=prompts or ("cat",))
        return (await self.edge.submit(caller, request)).task

    async def finish(self, task: Task) -> Task:
        """Finish the task as a worker does, without a model."""
        claim = await self.queue.claim("worker", task.task_id, lease_s=60)
        assert claim is not None
        outcome = outcome_for(task)
        for key in outcome.object_keys:
            await self.objects.put(key, b"result")
        return await self.queue.finish(claim.lease, outcome)

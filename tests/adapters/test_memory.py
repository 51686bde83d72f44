from collections.abc import Awaitable, Callable

import pytest

from s3seg.adapters.memory import MemoryNotifier, MemoryObjectStore, MemoryRateLimiter
from s3seg.testing import (
    AccountsSuite,
    ObjectStoreSuite,
    RateLimiterSuite,
    RetentionSuite,
    TaskQueueSuite,
    TaskStoreSuite,
    WebhookSuite,
    WorkerNotifierSuite,
)
from tests.adapters.harnesses import MemoryHarness
from tests.helpers.moved_base import check_both_urls_of_an_image


class TestMemoryObjectStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self):
        return MemoryObjectStore(public_base="https://objects.example/files")


class TestMemoryTaskStore(TaskStoreSuite):
    @pytest.fixture
    def harness(self):
        return MemoryHarness()


class TestMemoryTaskQueue(TaskQueueSuite):
    @pytest.fixture
    def harness(self):
        return MemoryHarness()


class TestMemoryRetention(RetentionSuite):
    @pytest.fixture
    def harness(self):
        return MemoryHarness()


class TestMemoryAccounts(AccountsSuite):
    @pytest.fixture
    def harness(self):
        return MemoryHarness()


@pytest.mark.anyio
async def test_an_image_is_known_by_its_present_url_too():
    harness = MemoryHarness()

    async def move(base):
        harness.tables.public_base = base

    await check_both_urls_of_an_image(harness, move)


class TestMemoryWebhooks(WebhookSuite):
    @pytest.fixture
    def harness(self):
        return MemoryHarness()


class _Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class TestMemoryRateLimiter(RateLimiterSuite):
    @pytest.fixture
    def clock(self):
        return _Clock()

    @pytest.fixture
    def limiter(self, clock):
        return MemoryRateLimiter(clock=clock)

    @pytest.fixture
    def pass_time(self, clock) -> Callable[[float], Awaitable[None]]:
        async def later(seconds: float) -> None:
            clock.seconds += seconds

        return later

    async def test_inactive_users_use_no_memory(self, limiter, new_user, pass_time):
        from s3seg.tasks.limits import Action, Tier

        for _ in range(50):
            await limiter.take(await new_user(Tier.FREE), Action.TASKS, Tier.FREE)
        await pass_time(61)
        await limiter.take(await new_user(Tier.FREE), Action.TASKS, Tier.FREE)
        assert len(limiter._times) == 1


class TestMemoryNotifier(WorkerNotifierSuite):
    @pytest.fixture
    def notifier(self):
        return MemoryNotifier()

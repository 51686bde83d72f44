import sqlite3
from dataclasses import replace

import pytest

from s3seg.adapters.sqlite import COUNTS, Database, SqliteRateLimiter, SqliteTaskStore
from s3seg.tasks.limits import Action, Tier
from s3seg.testing import AccountsSuite, RateLimiterSuite, RetentionSuite, TaskQueueSuite, TaskStoreSuite, WebhookSuite
from tests.adapters.harnesses import SqliteHarness
from tests.helpers.moved_base import check_both_urls_of_an_image


class _OnSqlite:
    @pytest.fixture
    async def harness(self, tmp_path):
        harness = SqliteHarness(tmp_path / "tasks.sqlite3")
        yield harness
        await harness.aclose()


class TestSqliteTaskStore(_OnSqlite, TaskStoreSuite):
    pass


class TestSqliteTaskQueue(_OnSqlite, TaskQueueSuite):
    pass


class TestSqliteRetention(_OnSqlite, RetentionSuite):
    pass


class TestSqliteAccounts(_OnSqlite, AccountsSuite):
    pass


class TestSqliteWebhooks(_OnSqlite, WebhookSuite):
    pass


class _Clock:
    seconds = 10_000.0

    def __call__(self):
        return self.seconds


class TestSqliteRateLimiter(RateLimiterSuite):
    @pytest.fixture
    def clock(self):
        return _Clock()

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "rate-limits.sqlite3"

    @pytest.fixture
    async def limiter(self, path, clock):
        limiter = SqliteRateLimiter(Database(path, schema=COUNTS), clock=clock)
        yield limiter
        await limiter.aclose()

    @pytest.fixture
    async def another_process(self, path, clock):
        limiter = SqliteRateLimiter(Database(path, schema=COUNTS), clock=clock)
        yield limiter
        await limiter.aclose()

    @pytest.fixture
    def pass_time(self, clock):
        async def later(seconds):
            clock.seconds += seconds

        return later

    async def test_the_counts_of_before_a_restart_of_the_machine_hold_for_a_minute(self, limiter, new_user, clock):
        user = await new_user(Tier.FREE)
        for _ in range(10):
            await limiter.take(user, Action.UPLOAD, Tier.FREE)
        clock.seconds = 5.0  # the clock begins at 0 when the machine starts
        for _ in range(2):
            assert not (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed
        clock.seconds = 66.0
        assert (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed

    async def test_inactive_users_leave_no_rows(self, limiter, new_user, pass_time, path):
        for _ in range(20):
            await limiter.take(await new_user(Tier.FREE), Action.TASKS, Tier.FREE)
        await pass_time(61)
        await limiter.take(await new_user(Tier.FREE), Action.TASKS, Tier.FREE)
        database = sqlite3.connect(path)
        assert database.execute("SELECT count(*) FROM recent_actions").fetchall() == [(1,)]
        database.close()


@pytest.mark.anyio
async def test_an_image_is_known_by_its_present_url_too(tmp_path):
    harness = SqliteHarness(tmp_path / "tasks.sqlite3")

    async def move(base):
        await harness.store.aclose()
        harness.store = SqliteTaskStore(Database(harness.path), policy=replace(harness.policy, public_base=base))

    await check_both_urls_of_an_image(harness, move)
    await harness.aclose()

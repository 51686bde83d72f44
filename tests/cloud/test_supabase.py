"""The Supabase adapters pass the test suites on PostgreSQL and PostgREST."""

import pytest

from s3seg.errors import RateLimitedError
from s3seg.tasks.limits import Tier
from s3seg.testing import AccountsSuite, TaskQueueSuite, TaskStoreSuite
from tests.cloud.harness import OnSupabase


class TestSupabaseTaskStore(OnSupabase, TaskStoreSuite):
    async def test_limits_of_the_database_name_their_action(self, harness):
        """The database enforces limits across several edges, each of which counts on its own."""
        user = await harness.user(tier=Tier.FREE)
        for _ in range(10):
            await harness.image(user)
        with pytest.raises(RateLimitedError) as refused:
            await harness.image(user)
        assert (refused.value.action, refused.value.limit) == ("upload", 10)
        assert 0 < refused.value.retry_after <= 60
        for number in range(60):
            await harness.store.create_project(user, f"p{number}")
        with pytest.raises(RateLimitedError) as refused:
            await harness.store.create_project(user, "one more")
        assert (refused.value.action, refused.value.limit) == ("results", 60)


class TestSupabaseTaskQueue(OnSupabase, TaskQueueSuite):
    pass


class TestSupabaseAccounts(OnSupabase, AccountsSuite):
    pass

"""The Supabase adapters pass the test suites on PostgreSQL and PostgREST."""

import pytest

from s3seg.errors import RateLimitedError
from s3seg.tasks.limits import Action, Tier
from s3seg.testing import AccountsSuite, RateLimiterSuite, RetentionSuite, TaskQueueSuite, TaskStoreSuite, WebhookSuite
from s3seg.testing.harness import PUBLIC_BASE
from tests.cloud.harness import OnSupabase
from tests.helpers.moved_base import check_both_urls_of_an_image


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

    async def test_an_image_is_known_by_its_present_url_too(self, harness):
        async def move(base):
            harness._owner.execute("update private.config set public_base_url = %s", (base,))

        try:
            await check_both_urls_of_an_image(harness, move)
        finally:
            await move(PUBLIC_BASE)


class TestSupabaseTaskQueue(OnSupabase, TaskQueueSuite):
    pass


class TestSupabaseRetention(OnSupabase, RetentionSuite):
    pass


class TestSupabaseAccounts(OnSupabase, AccountsSuite):
    pass


class TestSupabaseWebhooks(OnSupabase, WebhookSuite):
    pass


class TestSupabaseRateLimiter(OnSupabase, RateLimiterSuite):
    @pytest.fixture
    def limiter(self, harness):
        return harness.limiters[0]

    @pytest.fixture
    def another_process(self, harness):
        return harness.limiters[1]

    @pytest.fixture
    def pass_time(self, harness):
        return harness.pass_time

    @pytest.fixture
    def new_user(self, harness):
        return lambda tier: harness.user(tier=tier)

    @pytest.mark.parametrize("tier", [Tier.FREE, Tier.PRO, pytest.param(Tier.ENTERPRISE, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("action", list(Action))
    async def test_exactly_the_limit_is_allowed(self, limiter, new_user, tier, action):
        await super().test_exactly_the_limit_is_allowed(limiter, new_user, tier, action)

    async def test_requests_and_what_they_make_are_counted_separately(self, limiter, harness):
        user = await harness.user(tier=Tier.FREE)
        for _ in range(10):
            assert (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed
            await harness.image(user)
        assert not (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed

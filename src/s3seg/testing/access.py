"""Test suites for `Authenticator`, `RateLimiter` and `WorkerNotifier`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s3seg.errors import AuthInvalidError, ForbiddenError, RateLimitedError
from s3seg.tasks.limits import RATE_LIMITS, Action, Tier
from s3seg.tasks.model import Task, TaskStatus
from s3seg.tasks.ports import Authenticator, RateLimiter, WorkerNotifier
from s3seg.tasks.records import Identity
from s3seg.testing.harness import AsyncSuite

NewUser = Callable[[Tier], Awaitable[Identity]]
PassTime = Callable[[float], Awaitable[None]]
Mint = Callable[..., str]
"""``mint(header={...}, **claims)`` returns a token with a valid signature; claims that are None are left out."""


def claims_of(user_id: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of a signed-in user's token, as Supabase Auth issues it; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "sub": user_id,
        "aud": "authenticated",
        "iat": now,
        "exp": now + 600,
        "role": "authenticated",
        "is_anonymous": False,
        "app_metadata": {"provider": "email"},
        "user_metadata": {},
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


class AuthenticatorSuite(AsyncSuite):
    """Tests for an `Authenticator`.

    Override the fixtures ``authenticator`` and ``mint``. The latter must add a valid ``iss`` if none is given.
    """

    @pytest.fixture
    def authenticator(self) -> Authenticator:
        """Return the adapter to test."""
        raise NotImplementedError

    @pytest.fixture
    def mint(self) -> Mint:
        """Return a function that signs claims with a key that the adapter trusts; see `Mint`."""
        raise NotImplementedError

    async def test_a_good_token_names_its_user(self, authenticator: Authenticator, mint: Mint) -> None:
        user = str(uuid.uuid4())
        token = mint(**claims_of(user, app_metadata={"tier": "pro"}))
        identity = await authenticator.authenticate(token)
        assert (identity.user_id, identity.tier, identity.anonymous) == (user, Tier.PRO, False)
        assert identity.expires_at is not None
        assert identity.expires_at > datetime.now(UTC)
        assert token not in repr(identity)

    async def test_user_metadata_does_not_set_the_tier(self, authenticator: Authenticator, mint: Mint) -> None:
        claims = claims_of(str(uuid.uuid4()), user_metadata={"tier": "enterprise"}, tier="enterprise")
        assert (await authenticator.authenticate(mint(**claims))).tier is None

    @pytest.mark.parametrize("claim", ["exp", "sub", "iat", "aud"])
    async def test_a_missing_claim_is_refused(self, authenticator: Authenticator, mint: Mint, claim: str) -> None:
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(mint(**claims_of(str(uuid.uuid4()), **{claim: None})))

    @pytest.mark.parametrize(
        "change",
        [
            {"exp": int(time.time()) - 60},
            {"exp": "soon"},
            {"exp": 10**400},
            {"iat": int(time.time()) + 3600},
            {"nbf": int(time.time()) + 3600},
            {"aud": "anon"},
            {"aud": ["x"]},
            {"iss": "https://elsewhere.example/auth/v1"},
            {"sub": "alice"},
            {"sub": ""},
        ],
    )
    async def test_a_wrong_claim_is_refused(
        self, authenticator: Authenticator, mint: Mint, change: dict[str, Any]
    ) -> None:
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(mint(**claims_of(str(uuid.uuid4()), **change)))

    @pytest.mark.parametrize("change", [{"role": "service_role"}, {"role": "anon"}, {"role": None}])
    async def test_another_role_is_forbidden(
        self, authenticator: Authenticator, mint: Mint, change: dict[str, Any]
    ) -> None:
        with pytest.raises(ForbiddenError):
            await authenticator.authenticate(mint(**claims_of(str(uuid.uuid4()), **change)))

    async def test_an_anonymous_user_is_forbidden(self, authenticator: Authenticator, mint: Mint) -> None:
        with pytest.raises(ForbiddenError):
            await authenticator.authenticate(mint(**claims_of(str(uuid.uuid4()), is_anonymous=True)))

    @pytest.mark.parametrize("header", [{"kid": "unknown"}, {"crit": ["x"], "x": 1}])
    async def test_an_unsupported_header_is_refused(
        self, authenticator: Authenticator, mint: Mint, header: dict[str, Any]
    ) -> None:
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(mint(header=header, **claims_of(str(uuid.uuid4()))))

    async def test_a_modified_token_is_refused(self, authenticator: Authenticator, mint: Mint) -> None:
        head, body, signature = mint(**claims_of(str(uuid.uuid4()))).split(".")
        _, other_body, _ = mint(**claims_of(str(uuid.uuid4()))).split(".")
        unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"  # {"alg":"none","typ":"JWT"}
        for token in (
            f"{head}.{other_body}.{signature}",
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{unsigned}.{body}.",
            f"{unsigned}.{body}.{signature}",
            f"{head}.{body}.{signature[::-1]}",
        ):
            with pytest.raises(AuthInvalidError):
                await authenticator.authenticate(token)

    @pytest.mark.parametrize("token", ["", ".", "..", "abc", "a.b.c", "é.é.é", "\0", "x" * 200_000, "e30.e30.e30"])
    async def test_text_that_is_not_a_token_is_refused(self, authenticator: Authenticator, token: str) -> None:
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(token)


class RateLimiterSuite(AsyncSuite):
    """Tests for a `RateLimiter`.

    Override the fixtures ``limiter`` (with the default table, `RATE_LIMITS`), ``pass_time``, and, if a user must exist,
    ``new_user``. If the limiter counts for several processes together, override ``another_process``.
    """

    @pytest.fixture
    def limiter(self) -> RateLimiter:
        """Return the adapter to test."""
        raise NotImplementedError

    @pytest.fixture
    def pass_time(self) -> PassTime:
        """Return a coroutine function that moves the clock of the limiter forward by a number of seconds."""
        raise NotImplementedError

    @pytest.fixture
    def new_user(self) -> NewUser:
        """Return a coroutine function that creates a user of a tier."""

        async def create(tier: Tier) -> Identity:
            return Identity(user_id=str(uuid.uuid4()), tier=tier)

        return create

    @pytest.fixture
    def another_process(self, limiter: RateLimiter) -> RateLimiter:
        """Return a limiter as another process has it, on the same counts and the same clock."""
        return pytest.skip("this limiter counts for one process")

    @pytest.mark.parametrize("tier", list(Tier))
    @pytest.mark.parametrize("action", list(Action))
    async def test_exactly_the_limit_is_allowed(
        self, limiter: RateLimiter, new_user: NewUser, tier: Tier, action: Action
    ) -> None:
        user, limit = await new_user(tier), RATE_LIMITS[tier][action]
        decisions = [await limiter.take(user, action, tier) for _ in range(limit + 2)]
        assert [decision.allowed for decision in decisions] == [True] * limit + [False] * 2
        assert [decision.remaining for decision in decisions] == [*range(limit - 1, -1, -1), 0, 0]
        assert all(decision.limit == limit for decision in decisions)
        assert 0 < decisions[-1].retry_after <= 60
        with pytest.raises(RateLimitedError):
            decisions[-1].require()

    async def test_never_more_than_the_limit_in_any_minute(
        self, limiter: RateLimiter, new_user: NewUser, pass_time: PassTime
    ) -> None:
        user, now, allowed_at = await new_user(Tier.FREE), 0.0, []
        for step in [55.0, *[1.0] * 12, 30.0, 20.0, *[3.0] * 25]:
            await pass_time(step)
            now += step
            while (await limiter.take(user, Action.SEGMENT, Tier.FREE)).allowed:
                allowed_at.append(now)
        for start in allowed_at:
            assert sum(start <= moment < start + 60 for moment in allowed_at) <= 5
        assert len(allowed_at) >= 10  # actions that left the window made room for new ones

    async def test_retry_after_is_when_one_more_is_allowed(
        self, limiter: RateLimiter, new_user: NewUser, pass_time: PassTime
    ) -> None:
        user = await new_user(Tier.FREE)
        for _ in range(5):
            await limiter.take(user, Action.SEGMENT, Tier.FREE)
            await pass_time(2)
        refused = await limiter.take(user, Action.SEGMENT, Tier.FREE)
        await pass_time(refused.retry_after - 0.5)
        assert not (await limiter.take(user, Action.SEGMENT, Tier.FREE)).allowed
        await pass_time(0.6)
        assert (await limiter.take(user, Action.SEGMENT, Tier.FREE)).allowed
        assert not (await limiter.take(user, Action.SEGMENT, Tier.FREE)).allowed

    async def test_users_and_actions_are_counted_separately(self, limiter: RateLimiter, new_user: NewUser) -> None:
        user = await new_user(Tier.FREE)
        for _ in range(5):
            await limiter.take(user, Action.SEGMENT, Tier.FREE)
        assert not (await limiter.take(user, Action.SEGMENT, Tier.FREE)).allowed
        assert (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed
        assert (await limiter.take(await new_user(Tier.FREE), Action.SEGMENT, Tier.FREE)).allowed

    async def test_concurrent_requests_share_one_limit(self, limiter: RateLimiter, new_user: NewUser) -> None:
        user = await new_user(Tier.FREE)
        decisions = await asyncio.gather(*(limiter.take(user, Action.UPLOAD, Tier.FREE) for _ in range(30)))
        assert sum(decision.allowed for decision in decisions) == 10

    async def test_processes_share_one_limit(
        self, limiter: RateLimiter, another_process: RateLimiter, new_user: NewUser
    ) -> None:
        user = await new_user(Tier.FREE)
        limiters = [limiter, another_process] * 10
        decisions = await asyncio.gather(*(one.take(user, Action.UPLOAD, Tier.FREE) for one in limiters))
        assert sum(decision.allowed for decision in decisions) == 10

    async def test_a_clock_that_is_set_back_blocks_nobody_for_longer_than_the_window(
        self, limiter: RateLimiter, new_user: NewUser, pass_time: PassTime
    ) -> None:
        user = await new_user(Tier.FREE)
        for _ in range(10):
            assert (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed
        await pass_time(-3600)
        refused = await limiter.take(user, Action.UPLOAD, Tier.FREE)
        assert not refused.allowed  # it may be less than a minute since the last one
        assert refused.retry_after <= 60
        await pass_time(30)
        assert not (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed
        await pass_time(30.5)
        assert (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed

    async def test_a_limiter_can_be_checked_and_closed_twice(self, limiter: RateLimiter) -> None:
        await limiter.check()
        await limiter.aclose()
        await limiter.aclose()


class WorkerNotifierSuite(AsyncSuite):
    """Tests for a `WorkerNotifier`. Override the fixture ``notifier``; there need not be any worker to notify."""

    @pytest.fixture
    def notifier(self) -> WorkerNotifier:
        """Return the adapter to test."""
        raise NotImplementedError

    async def test_waking_never_fails(self, notifier: WorkerNotifier) -> None:
        now = datetime.now(UTC)
        task = Task(
            task_id=str(uuid.uuid4()),
            user_id=str(uuid.uuid4()),
            project_id=None,
            image_id=None,
            source_image_url="https://objects.example/files/users/u/images/i.png",
            prompts=("cat",),
            status=TaskStatus.PENDING,
            created_at=now,
            updated_at=now,
            deadline=now + timedelta(minutes=5),
        )
        await asyncio.gather(*(notifier.wake(task) for _ in range(5)))
        await notifier.aclose()
        await notifier.aclose()

"""The harness of the Supabase adapters."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest
from pydantic import SecretStr

from s3seg.adapters.supabase.limiter import SupabaseRateLimiter
from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import SupabaseTaskStore
from s3seg.adapters.supabase.webhooks import SupabaseWebhookOutbox, SupabaseWebhooks
from s3seg.adapters.supabase.work import SupabaseAccounts, SupabaseTaskQueue
from s3seg.tasks.limits import Tier
from s3seg.tasks.records import Identity
from s3seg.tasks.state_machine import Rules
from s3seg.testing.harness import PUBLIC_BASE, TaskHarness
from tests.cloud.conftest import Project
from tests.cloud.parts.gateway import PUBLISHABLE_KEY, SECRET_KEY


class SupabaseHarness(TaskHarness):
    """Store, queue and accounts have connections of their own; the clock of the database can be moved."""

    def __init__(self, project: Project) -> None:
        self.rules = Rules()
        self.project = project
        project.empty()
        project.database.execute("update private.config set retention_s = null")
        url = project.gateway.url
        users, service, operator = (
            Rest(url, SecretStr(key), timeout_s=30) for key in (PUBLISHABLE_KEY, SECRET_KEY, SECRET_KEY)
        )
        self.store = SupabaseTaskStore(users, public_base=PUBLIC_BASE)
        self.queue = SupabaseTaskQueue(service, public_base=PUBLIC_BASE)
        self.accounts = SupabaseAccounts(operator, public_base=PUBLIC_BASE)
        self.limiters = [
            SupabaseRateLimiter(Rest(url, SecretStr(PUBLISHABLE_KEY), timeout_s=30), public_base=PUBLIC_BASE)
            for _ in range(2)
        ]
        self.webhooks = SupabaseWebhooks(users)
        self.outbox = SupabaseWebhookOutbox(service)
        self._owner = psycopg.connect(project.database.url, autocommit=True)

    async def new_identity(self, *, tier: Tier, anonymous: bool = False) -> Identity:
        user_id = str(uuid.uuid4())
        self._owner.execute("insert into auth.users (id) values (%s)", (user_id,))
        claims = {"is_anonymous": anonymous, "app_metadata": {"provider": "email", "tier": tier.value}}
        token = self.project.issuer.user_token(user_id, **claims)
        return Identity(user_id=user_id, tier=tier, anonymous=anonymous, token=token)

    async def pass_time(self, seconds: float) -> None:
        self._owner.execute("update private.test_clock set ahead = ahead + make_interval(secs => %s)", (seconds,))

    async def set_retention(self, seconds: int | None) -> None:
        self._owner.execute("update private.config set retention_s = %s", (seconds,))

    async def aclose(self) -> None:
        for part in (self.store, self.queue, self.accounts, *self.limiters):
            await part.aclose()
        self._owner.close()


class OnSupabase:
    """Gives a suite its harness."""

    @pytest.fixture
    async def harness(self, project: Project) -> AsyncIterator[SupabaseHarness]:
        harness = SupabaseHarness(project)
        yield harness
        await harness.aclose()

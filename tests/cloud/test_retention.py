"""What has ended, and accounts that were deleted, on a real Supabase database and a real S3 store together."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime, timedelta

import pytest

from s3seg.edge.export import AccountExport
from s3seg.tasks.maintenance import Removals, collect_garbage, remove_ended
from s3seg.testing.harness import outcome_for
from tests.cloud.harness import OnSupabase
from tests.cloud.test_r2 import r2

pytestmark = pytest.mark.anyio


class TestRetentionOnSupabaseAndR2(OnSupabase):
    @pytest.fixture
    async def objects(self, s3):
        s3.empty()
        objects = r2(s3)
        yield objects
        await objects.aclose()

    async def filled(self, harness, objects, *, keep_s=None):
        user = await harness.user()
        image = await harness.image(user, keep_s=keep_s)
        await objects.put(image.object_key, b"the same picture for all")
        task = await harness.submit(user, image=image, keep_s=keep_s)
        outcome = outcome_for(task)
        for key in outcome.object_keys:
            await objects.put(key, b"result")
        await harness.queue.finish(await harness.claim(task), outcome)
        return user, image, task

    async def keys(self, objects):
        return {info.key async for info in objects.list("users/")}

    async def test_what_has_ended_is_removed_and_nothing_else(self, harness, objects):
        await self.filled(harness, objects)
        kept = await self.keys(objects)
        await self.filled(harness, objects, keep_s=60)
        await harness.pass_time(61)
        assert await remove_ended(objects, harness.accounts) == Removals(images=1, results=1, objects=3)
        assert await self.keys(objects) == kept
        assert await remove_ended(objects, harness.accounts) == Removals()

    async def test_an_account_is_exported_and_deleted(self, harness, objects):
        other, *_ = await self.filled(harness, objects)
        kept = await self.keys(objects)
        user, image, task = await self.filled(harness, objects)
        export = AccountExport(user, tasks=harness.store, objects=objects, webhooks=harness.webhooks)
        data = b"".join([chunk async for chunk in export.chunks()])
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            names = archive.getnames()
        assert sum(name.startswith(f"images/{image.image_id}/") for name in names) == 2
        assert sum(name.startswith(f"results/{task.task_id}/") for name in names) == 3
        assert names[-1] == "complete.json"
        await harness.store.close_account(user)
        assert (await remove_ended(objects, harness.accounts)).accounts == 1
        assert await self.keys(objects) == kept
        assert (await harness.store.list_tasks(other)).total == 1

    async def test_objects_of_a_user_who_was_deleted_from_supabase_auth_at_once_are_garbage(
        self, project, harness, objects
    ):
        await self.filled(harness, objects)
        kept = await self.keys(objects)
        user, *_ = await self.filled(harness, objects)
        await harness.store.close_account(user)
        project.database.execute("delete from auth.users where id = %s", (user.user_id,))
        assert await remove_ended(objects, harness.accounts) == Removals()
        later = datetime.now(UTC) + timedelta(days=1)
        collected = await collect_garbage(objects, harness.accounts, before=later)
        assert collected.objects == 3
        assert await self.keys(objects) == kept

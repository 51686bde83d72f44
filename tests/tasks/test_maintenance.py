import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from s3seg.adapters.files import FileObjectStore
from s3seg.adapters.memory import (
    MemoryAccounts,
    MemoryObjectStore,
    MemoryTables,
    MemoryTaskQueue,
    MemoryTaskStore,
)
from s3seg.errors import InvalidRequestError, UnavailableError
from s3seg.tasks.maintenance import (
    Job,
    Maintenance,
    Removals,
    collect_garbage,
    reap_all,
    reaping,
    remove_ended,
    removing_ended,
)
from s3seg.tasks.model import Outcome, TaskRequest
from s3seg.tasks.object_keys import new_image_key, new_result_key
from s3seg.tasks.records import Identity, NewImage
from s3seg.tasks.retention import keep_for
from s3seg.tasks.state_machine import Rules
from s3seg.web.removal_metrics import RemovalCounter

pytestmark = pytest.mark.anyio
USER = Identity(user_id="0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f")
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def tables():
    return MemoryTables()


@pytest.fixture(params=["memory", "files"])
def objects(request, tmp_path):
    if request.param == "memory":
        return MemoryObjectStore()
    return FileObjectStore(tmp_path, public_base="http://127.0.0.1:8000/files")


async def upload(objects, store):
    key = new_image_key(USER.user_id, "image/png")
    await objects.put(key, b"image")
    return await store.register_image(
        USER, NewImage(object_key=key, content_type="image/png", size_bytes=5, width=1, height=1)
    )


async def test_objects_that_no_row_refers_to_are_removed(objects, tables):
    store, queue = MemoryTaskStore(tables), MemoryTaskQueue(tables)
    image = await upload(objects, store)
    task = (await store.submit(USER, TaskRequest(image_url=image.image_url, prompts=("cat",)))).task
    (claim,) = await queue.claim_batch("w", limit=1, lease_s=30)
    kept, lost = (new_result_key(USER.user_id, task.task_id, "image/png") for _ in range(2))
    await objects.put(kept, b"mask")
    await objects.put(lost, b"of an attempt that died")
    outcome = Outcome(mask_image_url=objects.url(kept), labels=("cat",), metadata={}, object_keys=(kept,))
    await queue.finish(claim.lease, outcome)

    accounts = MemoryAccounts(tables)
    looked = await collect_garbage(objects, accounts, before=TOMORROW, dry_run=True)
    assert (looked.objects, looked.size_bytes) == (1, len(b"of an attempt that died"))
    assert len([info async for info in objects.list("")]) == 3
    assert (await collect_garbage(objects, accounts, before=TOMORROW)).objects == 1
    assert {info.key async for info in objects.list("")} == {image.object_key, kept}
    assert (await collect_garbage(objects, accounts, before=TOMORROW)).objects == 0


@pytest.mark.parametrize("key", ["users/ann/backup.json", f"users/{USER.user_id}/avatar.png", "other/x.png"])
async def test_objects_of_other_programs_in_the_bucket_are_kept(objects, tables, key):
    await objects.put(key, b"not ours")
    found = await collect_garbage(objects, MemoryAccounts(tables), before=TOMORROW, unknown_users=True)
    assert (found.objects, found.kept_objects) == (0, 0)
    assert [info.key async for info in objects.list("")] == [key]


async def test_recent_objects_are_kept(objects, tables):
    await objects.put(new_image_key(USER.user_id, "image/png"), b"its row is being written")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    found = await collect_garbage(objects, MemoryAccounts(tables), before=yesterday, unknown_users=True)
    assert (found.objects, found.kept_objects) == (0, 0)
    assert len([info async for info in objects.list("")]) == 1


async def test_more_objects_than_fit_into_one_query(objects, tables):
    store = MemoryTaskStore(tables)
    named = {(await upload(objects, store)).object_key for _ in range(40)}
    for _ in range(600):
        await objects.put(new_image_key(USER.user_id, "image/png"), b"x")
    assert (await collect_garbage(objects, MemoryAccounts(tables), before=TOMORROW)).objects == 600
    assert {info.key async for info in objects.list("")} == named


async def test_all_expired_tasks_are_reaped():
    tables = MemoryTables(rules=Rules(deadline_s=0.0), welcome_credits=300, rates=_unlimited())
    store, queue = MemoryTaskStore(tables), MemoryTaskQueue(tables)
    image = await upload(MemoryObjectStore(), store)
    for _ in range(250):
        await store.submit(USER, TaskRequest(image_url=image.image_url, prompts=("cat",)))
    assert await reap_all(queue) == 250
    assert (await store.account(USER)).credits == 300


def _unlimited():
    from s3seg.app.settings import Settings

    return Settings(rate_limits="off").rates


async def test_objects_of_users_without_an_account_are_only_removed_on_request(objects, tables):
    accounts = MemoryAccounts(tables)
    await accounts.ensure(USER.user_id)
    mine, theirs = (new_image_key(user, "image/png") for user in (USER.user_id, str(uuid.uuid4())))
    for key in (mine, theirs):
        await objects.put(key, b"x")
    found = await collect_garbage(objects, accounts, before=TOMORROW)
    assert (found.objects, found.kept_objects, found.kept_size_bytes, found.kept_users) == (1, 1, 1, 1)
    assert [info.key async for info in objects.list("")] == [theirs]
    found = await collect_garbage(objects, accounts, before=TOMORROW, unknown_users=True)
    assert (found.objects, found.kept_objects, found.kept_users) == (1, 0, 0)
    assert [info.key async for info in objects.list("")] == []


async def test_of_several_services_one_does_a_job_that_is_due(tables):
    ran = []

    async def run():
        ran.append(1)
        return "done"

    accounts = MemoryAccounts(tables)
    services = [Maintenance(accounts, [Job(name="x", every_s=60, run=run)]) for _ in range(4)]
    begun = await asyncio.gather(*(service.run_due() for service in services))
    assert sorted(begun) == [[], [], [], ["x"]]
    assert ran == [1]
    tables.now = lambda: datetime.now(UTC) + timedelta(seconds=61)
    assert await services[0].run_due() == ["x"]


async def test_a_job_that_fails_is_logged_and_does_not_stop_the_others(tables, caplog):
    ran = []

    async def fail():
        raise UnavailableError("the disk is full")

    async def work():
        ran.append(1)

    jobs = [Job(name="first", every_s=60, run=fail), Job(name="second", every_s=60, run=work)]
    await Maintenance(MemoryAccounts(tables), jobs).run_due()
    assert ran == [1]
    assert "'first' failed" in caplog.text


async def test_the_loop_ends_hopeless_tasks_by_itself_until_it_is_closed():
    tables = MemoryTables(rules=Rules(deadline_s=0.0))
    store, queue = MemoryTaskStore(tables), MemoryTaskQueue(tables)
    image = await upload(MemoryObjectStore(), store)
    task = (await store.submit(USER, TaskRequest(image_url=image.image_url, prompts=("cat",)))).task
    loop = Maintenance(MemoryAccounts(tables), [reaping(queue, every_s=60)], pause_s=0.01)
    loop.start()
    async with asyncio.timeout(20):
        while not (await store.get_task(USER, task.task_id)).ended:
            await asyncio.sleep(0.01)
    await loop.aclose()
    await loop.aclose()


class FailingObjects(MemoryObjectStore):
    """Fails to delete for as long as it is told to."""

    failing = True

    async def delete(self, key):
        if self.failing:
            raise UnavailableError("the storage does not answer")
        await super().delete(key)


async def ended_data(objects, tables):
    store, queue = MemoryTaskStore(tables), MemoryTaskQueue(tables)
    image = await upload(objects, store)
    task = (await store.submit(USER, TaskRequest(image_url=image.image_url, prompts=("cat",), keep_s=60))).task
    (claim,) = await queue.claim_batch("w", limit=1, lease_s=30)
    key = new_result_key(USER.user_id, task.task_id, "image/png")
    await objects.put(key, b"mask")
    outcome = Outcome(mask_image_url=objects.url(key), labels=("cat",), metadata={}, object_keys=(key,))
    await queue.finish(claim.lease, outcome)
    tables.now = lambda: datetime.now(UTC) + timedelta(minutes=2)
    return image, key


async def test_results_that_have_ended_are_removed_with_their_objects(objects, tables):
    image, _ = await ended_data(objects, tables)
    removed = await remove_ended(objects, MemoryAccounts(tables))
    assert removed == Removals(results=1, objects=1)
    assert [info.key async for info in objects.list("users/")] == [image.object_key]
    assert await remove_ended(objects, MemoryAccounts(tables)) == Removals()


async def test_objects_that_cannot_be_removed_now_are_left_to_garbage_collection(tables):
    objects = FailingObjects()
    _, key = await ended_data(objects, tables)
    assert await remove_ended(objects, MemoryAccounts(tables)) == Removals(results=1)
    objects.failing = False
    assert (await collect_garbage(objects, MemoryAccounts(tables), before=TOMORROW)).objects == 1
    assert key not in [info.key async for info in objects.list("users/")]


async def test_a_deleted_account_is_emptied_once_its_storage_answers_again(tables):
    objects = FailingObjects()
    await ended_data(objects, tables)
    accounts, totals = MemoryAccounts(tables), Removals()
    never_registered = new_image_key(USER.user_id, "image/png")
    await objects.put(never_registered, b"of an upload that died")
    await accounts.close(USER.user_id)
    job = removing_ended(objects, accounts, every_s=60, removals=totals)
    with pytest.raises(UnavailableError):
        await job.run()
    assert (totals.images, totals.results, totals.objects, totals.accounts) == (1, 1, 0, 0)
    objects.failing = False
    await job.run()
    assert (totals.objects, totals.accounts) == (3, 1)
    assert [info.key async for info in objects.list("users/")] == []
    assert await job.run() is None


async def test_what_was_removed_is_a_metric(tables):
    registry = CollectorRegistry()
    totals = Removals(images=2, garbage=5)
    registry.register(RemovalCounter(totals))
    totals.add(Removals(images=1, accounts=1))
    value = lambda kind: registry.get_sample_value("s3seg_removed_total", {"kind": kind})  # noqa: E731
    assert [value(kind) for kind in ("images", "results", "accounts", "garbage")] == [3, 0, 1, 5]


@pytest.mark.parametrize(
    ("asked", "retention_s", "kept"),
    [(None, None, None), (None, 3600, 3600), (60, None, 60), (60, 3600, 60), (3600, 3600, 3600), (30, 30, 30)],
)
def test_the_shorter_of_two_times_applies(asked, retention_s, kept):
    assert keep_for(asked, retention_s=retention_s) == kept


@pytest.mark.parametrize(("asked", "retention_s"), [(59, None), (3601, 3600), (0, 30), (31, 30), (10**9, None)])
def test_times_beyond_the_operators_or_too_short_are_refused(asked, retention_s):
    with pytest.raises(InvalidRequestError, match=f"got {asked}"):
        keep_for(asked, retention_s=retention_s)

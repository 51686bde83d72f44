"""Servers that stop, restart, refuse requests or drop connections: clear errors, safe retries, correct balances."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid

import pytest
from pydantic import SecretStr

from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import SupabaseTaskStore
from s3seg.errors import NotFoundError, ObjectExistsError, RateLimitedError, UnavailableError
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import new_image_key
from s3seg.testing.harness import PUBLIC_BASE, outcome_for
from tests.cloud.conftest import supabase
from tests.cloud.harness import SupabaseHarness
from tests.cloud.parts.faulty_proxy import faulty_proxy
from tests.cloud.parts.gateway import PUBLISHABLE_KEY
from tests.cloud.parts.postgres import postgres
from tests.cloud.test_r2 import r2

pytestmark = pytest.mark.anyio


# --- the database


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A project with its own database server, which tests may stop."""
    folder = tmp_path_factory.mktemp("fragile")
    home = folder / "postgres"
    home.mkdir()
    with postgres(home) as server, supabase(folder, server) as project:
        yield project


@pytest.fixture
async def harness(fragile):
    harness = SupabaseHarness(fragile)
    yield harness
    await harness.aclose()


async def eventually(call):
    """Repeat a call until the server is available again, and return the result."""
    for _ in range(300):
        try:
            return await call()
        except UnavailableError:
            await asyncio.sleep(0.1)
    raise AssertionError("the server did not become available")


async def test_a_stopped_postgrest_is_unavailable_and_charges_nothing(harness, fragile):
    user = await harness.user()
    image = await harness.image(user)
    task = await harness.submit(user, image=image)
    fragile.postgrest.server.stop()
    try:
        for attempt in (
            harness.store.get_task(user, task.task_id),
            harness.store.list_tasks(user),
            harness.store.submit(user, TaskRequest(image_url=image.image_url, prompts=("cat",))),
            harness.store.cancel(user, task.task_id),
            harness.store.create_project(user, "x"),
            harness.queue.claim_batch("w", limit=1, lease_s=30),
            harness.queue.reap(),
            harness.accounts.adjust(user.user_id, 100),
            harness.store.check(),
        ):
            with pytest.raises(UnavailableError):
                await attempt
    finally:
        fragile.postgrest.server.start()
    assert (await eventually(lambda: harness.store.get_task(user, task.task_id))) == task
    assert await harness.credits(user) == 9


async def test_submits_during_a_restart_of_postgres_each_create_one_task(harness, fragile):
    user = await harness.user(credits=60)
    image = await harness.image(user)
    requests = [TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key=f"k{n}") for n in range(30)]

    first_accepted = asyncio.Event()

    async def accepted(request):
        submitted = await eventually(lambda: harness.store.submit(user, request))
        first_accepted.set()
        return submitted

    async def restart():
        await first_accepted.wait()
        await asyncio.to_thread(fragile.database.server.stop)
        await asyncio.to_thread(fragile.database.server.start)

    answers, _ = await asyncio.gather(asyncio.gather(*(accepted(request) for request in requests)), restart())
    assert len({answer.task.task_id for answer in answers}) == 30
    assert (await harness.store.list_tasks(user)).total == 30
    assert await harness.credits(user) == 30


async def test_the_limits_hold_after_a_crash_of_postgres(harness, fragile):
    user = await harness.user(tier=Tier.FREE)
    limiter = harness.limiters[0]
    image = await harness.image(user)
    for _ in range(10):
        assert (await limiter.take(user, Action.UPLOAD, Tier.FREE)).allowed
    for _ in range(5):
        await harness.submit(user, image=image)
    os.kill(fragile.database.server.pid, signal.SIGQUIT)  # stops at once; the next start recovers from the log
    await asyncio.to_thread(fragile.database.server.stop)
    await asyncio.to_thread(fragile.database.server.start)
    assert not (await eventually(lambda: limiter.take(user, Action.UPLOAD, Tier.FREE))).allowed
    with pytest.raises(RateLimitedError):
        await eventually(lambda: harness.submit(user, image=image))


async def test_a_worker_continues_after_a_restart_of_postgres(harness, fragile):
    user = await harness.user()
    task = await harness.submit(user)
    lease = await harness.claim(task)
    await asyncio.to_thread(fragile.database.server.stop)
    with pytest.raises(UnavailableError):
        await harness.queue.renew(lease, lease_s=30)
    with pytest.raises(UnavailableError):
        await harness.store.get_task(user, task.task_id)
    await asyncio.to_thread(fragile.database.server.start)
    await eventually(lambda: harness.queue.renew(lease, lease_s=30))
    assert (await harness.queue.finish(lease, outcome_for(task))).mask_image_url
    assert await harness.credits(user) == 9


async def test_a_lost_response_is_requested_again_if_that_is_safe(harness, fragile):
    user = await harness.user(tier=Tier.ENTERPRISE)
    image = await harness.image(user)
    with faulty_proxy(fragile.gateway.url) as proxy:
        rest = Rest(proxy.url, SecretStr(PUBLISHABLE_KEY))
        store = SupabaseTaskStore(rest, public_base=PUBLIC_BASE)
        keyed = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        proxy.plan = ["lost"]
        assert not (await store.submit(user, keyed)).created  # the first attempt created it
        proxy.plan = ["lost"]
        await store.get_task(user, (await store.submit(user, keyed)).task.task_id)
        proxy.plan = ["lost"]
        with pytest.raises(UnavailableError):
            await store.submit(user, TaskRequest(image_url=image.image_url, prompts=("cat",)))
        proxy.always = "lost"
        with pytest.raises(UnavailableError):
            await store.list_tasks(user)
        proxy.always = "cut"
        with pytest.raises(UnavailableError):
            await store.list_tasks(user)
        await store.aclose()
    assert await harness.credits(user) == 8  # one task with the key, and one whose response was lost


# --- the object store

BODY = bytes(range(256)) * 12_000  # three chunks


@pytest.fixture
async def faulty(s3):
    """An object store behind a faulty proxy, and the proxy."""
    with faulty_proxy(s3.endpoint) as proxy:
        store = r2(s3, endpoint_url=proxy.url)
        yield store, proxy
        await store.aclose()


@pytest.fixture
def key():
    return new_image_key(str(uuid.uuid4()), "image/png")


@pytest.mark.parametrize("plan", [["503"], ["503", "503"], ["lost"], ["lost", "503"]])
async def test_a_put_with_faults_is_written_once(faulty, key, plan):
    store, proxy = faulty
    proxy.plan = list(plan)
    await store.put(key, BODY)
    assert await store.get(key) == BODY
    proxy.plan = list(plan)
    with pytest.raises(ObjectExistsError):
        await store.put(key, b"another")
    assert await store.get(key) == BODY


async def test_a_put_that_is_refused_leaves_nothing(faulty, key):
    store, proxy = faulty
    proxy.always = "503"
    with pytest.raises(UnavailableError):
        await store.put(key, BODY)
    proxy.always = "pass"
    with pytest.raises(NotFoundError):
        await store.get(key)


@pytest.mark.parametrize("plan", [["503"], ["cut"], ["cut", "503", "cut"], ["lost"]])
async def test_a_read_with_faults_is_complete(faulty, key, plan):
    store, proxy = faulty
    await store.put(key, BODY)
    proxy.plan = list(plan)
    assert await store.get(key) == BODY
    proxy.plan = ["pass", *plan]
    assert b"".join([chunk async for chunk in (await store.stream(key)).chunks]) == BODY


@pytest.mark.parametrize("always", ["503", "cut", "lost"])
async def test_a_read_that_never_succeeds_is_an_error(faulty, key, always):
    store, proxy = faulty
    await store.put(key, BODY)
    stream = await store.stream(key)
    proxy.always = always
    with pytest.raises(UnavailableError):
        await store.get(key)
    with pytest.raises(UnavailableError):
        [chunk async for chunk in stream.chunks]

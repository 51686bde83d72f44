"""The archive of all that a user has."""

import asyncio
import io
import itertools
import json
import tarfile

import pytest

from s3seg.adapters.memory.webhooks import MemoryWebhooks
from s3seg.edge import EdgeOptions
from s3seg.edge.export import ExportCursor
from s3seg.errors import InvalidRequestError, UnavailableError
from s3seg.tasks.records import ObjectStream
from tests.edge.system import System
from tests.helpers.archives import content_of

pytestmark = pytest.mark.anyio


async def archive_of(system, user, **options):
    return b"".join([chunk async for chunk in system.edge.export(user, **options)])


def files_of(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return {member.name: content_of(archive, member) for member in archive}


async def with_data(system):
    """A user with everything that a user can have."""
    user = await system.user(credits=10)
    project = await system.store.create_project(user, "zoo")
    done = await system.finish(await system.submit(user, "cat", "dog"))
    refused = await system.submit(user)
    await system.store.cancel(user, refused.task_id)
    await system.store.create_concept(user, "scratch", {"words": None, "examples": []})
    return user, project, done, refused


async def test_an_archive_has_all_that_a_user_has_and_nothing_of_others():
    system = System()
    webhooks = MemoryWebhooks(system.tables)
    system.edge._webhooks = webhooks
    user, project, done, refused = await with_data(system)
    await with_data(system)
    hook = await webhooks.create_webhook(user, "https://example.com/hook")
    data = await archive_of(system, user)
    files = files_of(data)

    assert json.loads(files["account.json"]) == {"user_id": user.user_id, "tier": "enterprise", "credits": 8}
    changes = [json.loads(line) for line in files["credits/000000.jsonl"].splitlines()]
    ledger = await system.accounts.ledger(user.user_id)
    assert [(one["delta"], one["reason"], one["task_id"]) for one in changes] == [
        (one.delta, one.reason, one.task_id) for one in ledger
    ]
    assert json.loads(files["projects/000001.jsonl"])["id"] == project.project_id
    assert [one["name"] for one in json.loads(files["concepts.json"])] == ["scratch"]
    assert [one["url"] for one in json.loads(files["webhooks.json"])] == ["https://example.com/hook"]
    assert hook.secret.encode() not in data

    images = await system.store.list_images(user)
    assert len(images) == 2
    for image in images:
        folder = f"images/{image.image_id}"
        assert json.loads(files[f"{folder}/image.json"])["image_url"] == image.image_url
        name = image.object_key.rpartition("/")[2]
        assert files[f"{folder}/{name}"] == await system.objects.get(image.object_key)
    result = json.loads(files[f"results/{done.task_id}/result.json"])
    assert (result["prompts"], result["status"], result["metadata"]) == (["cat", "dog"], "done", dict(done.metadata))
    for key in done.object_keys:
        assert files[f"results/{done.task_id}/{key.rpartition('/')[2]}"] == b"result"
    assert json.loads(files[f"results/{refused.task_id}/result.json"])["error_message"] == "cancelled"
    assert list(files)[-1] == "complete.json"
    assert json.loads(files["complete.json"])["objects_gone"] == 0
    assert len([name for name in files if name.endswith("result.json")]) == 2


async def test_an_archive_that_was_cut_anywhere_is_completed_by_asking_again():
    system = System()
    user, *_ = await with_data(system)
    for _ in range(2):
        await system.finish(await system.submit(user))
    whole = await archive_of(system, user)
    items = []  # begin and cursor of each
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        for member in archive:
            if member.name.endswith(("image.json", "result.json")):
                items.append((member.offset, json.loads(content_of(archive, member))["cursor"]))
    assert len(items) == 8
    for (_, cursor), (begin, _) in itertools.pairwise(items):
        rest = await archive_of(system, user, after=cursor)
        joined = files_of(whole[:begin] + rest)
        assert {name: data for name, data in joined.items() if name != "complete.json"} == {
            name: data for name, data in files_of(whole).items() if name != "complete.json"
        }
        assert "complete.json" in joined


async def test_objects_that_were_deleted_meanwhile_are_left_out_and_counted():
    system = System()
    user, _, done, _ = await with_data(system)
    await system.objects.delete(done.object_keys[0])
    files = files_of(await archive_of(system, user))
    assert json.loads(files["complete.json"])["objects_gone"] == 1


async def test_an_object_that_breaks_off_leaves_the_archive_incomplete():
    class Breaking(type(System().objects)):
        async def stream(self, key):
            found = await super().stream(key)

            async def half():
                async for chunk in found.chunks:
                    yield chunk[: len(chunk) // 2]

            return ObjectStream(info=found.info, chunks=half())

    objects = Breaking()
    system = System(objects=objects)
    system.objects = objects
    user, *_ = await with_data(system)
    received: list[bytes] = []

    async def receive():
        async for chunk in system.edge.export(user):
            received.append(chunk)

    with pytest.raises(UnavailableError):
        await receive()
    assert b"complete.json" not in b"".join(received)


async def test_memory_does_not_grow_with_the_archive(monkeypatch):
    """Each chunk is a page of credits, a description, or a part of an object."""
    system = System()
    user, *_ = await with_data(system)
    for _ in range(1500):
        await system.accounts.adjust(user.user_id, 1)
    chunks = [chunk async for chunk in system.edge.export(user)]
    assert max(map(len, chunks)) <= 1 << 20
    files = files_of(b"".join(chunks))
    assert len(files["credits/000000.jsonl"].splitlines()) == 1000
    assert len(files["credits/001000.jsonl"].splitlines()) == len(await system.accounts.ledger(user.user_id)) - 1000


async def test_a_user_gets_one_archive_at_a_time_and_others_get_theirs():
    system = System(options=EdgeOptions(max_exports=2))
    user, *_ = await with_data(system)
    other, third = await system.user(), await system.user()
    first = system.edge.export(user)
    await anext(first)
    with pytest.raises(UnavailableError):
        system.edge.export(user)
    second = system.edge.export(other)
    await anext(second)
    with pytest.raises(UnavailableError):
        system.edge.export(third)
    await first.aclose()
    assert files_of(await archive_of(system, user))
    await second.aclose()


async def test_of_requests_at_the_same_time_one_gets_the_archive():
    system = System()
    user, *_ = await with_data(system)
    archives = [system.edge.export(user) for _ in range(5)]  # all asked for before the first is sent
    begun = await asyncio.gather(*map(anext, archives), return_exceptions=True)
    assert [type(one) for one in begun] == [bytes, *[UnavailableError] * 4]
    await archives[0].aclose()
    assert files_of(await archive_of(system, user))


@pytest.mark.parametrize("text", ["", "images", "images.x", "projects.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "é" * 50])
async def test_what_is_no_cursor_is_refused(text):
    system = System()
    with pytest.raises(InvalidRequestError):
        system.edge.export(await system.user(), after=text)
    with pytest.raises(InvalidRequestError):
        ExportCursor.decode(text)

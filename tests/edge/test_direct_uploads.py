"""Uploads straight to the storage, as far as they need none; tests/cloud sends them to a real S3 server."""

from __future__ import annotations

import pytest

from s3seg.adapters.memory import MemoryObjectStore, MemoryTables, MemoryTaskStore
from s3seg.edge import direct_uploads
from s3seg.edge.uploads import Picture
from s3seg.errors import ImageDecodeError, NotFoundError
from s3seg.tasks.limits import Tier
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity

pytestmark = pytest.mark.anyio
USER = Identity(user_id="0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f", tier=Tier.PRO)


async def test_a_picture_that_another_request_has_registered_meanwhile_is_not_removed():
    objects, tasks = MemoryObjectStore(), MemoryTaskStore(MemoryTables())
    key = new_image_key(USER.user_id, "image/png")
    await objects.put(key, b"a picture")

    async def complete(inspect):
        upload_id = key.rpartition("/")[2]
        more = {"project_id": None, "expires_in_s": None}
        return await direct_uploads.complete(USER, upload_id, inspect=inspect, objects=objects, tasks=tasks, **more)

    async def works(data: bytes) -> Picture:
        return Picture(content_type="image/png", width=4, height=3)

    async def takes_too_long(data: bytes) -> Picture:
        await complete(works)
        raise ImageDecodeError("file: decoding takes too long")

    image = await complete(takes_too_long)
    assert (image.object_key, await objects.get(key)) == (key, b"a picture")


async def test_a_picture_that_cannot_be_read_is_removed():
    objects, tasks = MemoryObjectStore(), MemoryTaskStore(MemoryTables())
    key = new_image_key(USER.user_id, "image/png")
    await objects.put(key, b"no picture")

    async def fails(data: bytes) -> Picture:
        raise ImageDecodeError("file: damaged")

    with pytest.raises(ImageDecodeError):
        await direct_uploads.complete(
            USER,
            key.rpartition("/")[2],
            project_id=None,
            expires_in_s=None,
            inspect=fails,
            objects=objects,
            tasks=tasks,
        )
    with pytest.raises(NotFoundError):
        await objects.get(key)

"""Test suite for `ObjectStore`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from s3seg.errors import InvalidRequestError, NotFoundError, ObjectExistsError
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.ports import ObjectStore
from s3seg.testing.harness import AsyncSuite

USER = "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f"
INVALID_KEYS = (
    "",
    "/etc/passwd.png",
    "../secret.png",
    "users/../../secret.png",
    "users//x.png",
    "users/./x.png",
    "users/.hidden.png",
    "users/x.exe",
    "users/x",
    "users\\x.png",
    "users/x.png\n",
    "users/x\0.png",
    "users/%2e%2e/x.png",
    "users/é.png",
    "a" * 520 + ".png",
)


class ObjectStoreSuite(AsyncSuite):
    """Tests for an `ObjectStore`. Override the fixture ``store`` to return an empty store."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the adapter to test."""
        raise NotImplementedError

    async def test_an_object_is_read_as_it_was_written(self, store: ObjectStore) -> None:
        key, body = new_image_key(USER, "image/png"), bytes(range(256)) * 10
        info = await store.put(key, body)
        assert (info.key, info.size_bytes, info.content_type) == (key, len(body), "image/png")
        assert await store.get(key) == body

    async def test_only_a_store_that_takes_presigned_puts_makes_them(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/png")
        made = await store.presign_put(key, size_bytes=7, expires_s=60)
        assert (made is not None) == store.takes_presigned_puts
        if made is not None:
            assert made.url not in repr(made)
            assert made.headers["Content-Type"] == "image/png"

    async def test_an_object_may_be_empty(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "application/json")
        await store.put(key, b"")
        assert await store.get(key) == b""
        assert [chunk async for chunk in (await store.stream(key)).chunks if chunk] == []

    async def test_a_stream_returns_all_bytes_in_chunks_of_at_most_one_mebibyte(self, store: ObjectStore) -> None:
        key, body = new_image_key(USER, "image/webp"), bytes(range(251)) * 12_000
        await store.put(key, body)
        stream = await store.stream(key)
        chunks = [chunk async for chunk in stream.chunks]
        assert (stream.info.size_bytes, stream.info.content_type) == (len(body), "image/webp")
        assert b"".join(chunks) == body
        assert max(map(len, chunks)) <= 1 << 20

    async def test_an_existing_object_is_never_replaced(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/jpeg")
        await store.put(key, b"first")
        with pytest.raises(ObjectExistsError):
            await store.put(key, b"second")
        assert await store.get(key) == b"first"

    async def test_of_concurrent_puts_exactly_one_succeeds_and_is_complete(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/png")
        bodies = [bytes([number]) * 100_000 for number in range(8)]
        answers = await asyncio.gather(*(store.put(key, body) for body in bodies), return_exceptions=True)
        winners = [body for body, answer in zip(bodies, answers, strict=True) if not isinstance(answer, Exception)]
        assert [await store.get(key)] == winners
        assert sum(isinstance(answer, ObjectExistsError) for answer in answers) == len(bodies) - 1

    async def test_an_absent_object_is_not_found(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/png")
        with pytest.raises(NotFoundError):
            await store.get(key)
        with pytest.raises(NotFoundError):
            await store.stream(key)

    async def test_deleting_an_object_is_idempotent(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/png")
        await store.put(key, b"x")
        await store.delete(key)
        await store.delete(key)
        with pytest.raises(NotFoundError):
            await store.get(key)
        await store.put(key, b"again")
        assert await store.get(key) == b"again"

    @pytest.mark.parametrize("key", INVALID_KEYS)
    async def test_an_invalid_key_is_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(InvalidRequestError):
            await store.put(key, b"x")
        with pytest.raises(NotFoundError):
            await store.get(key)
        with pytest.raises(NotFoundError):
            await store.stream(key)
        await store.delete(key)

    async def test_a_list_contains_the_keys_with_the_prefix(self, store: ObjectStore) -> None:
        mine = {f"users/{USER}/images/{number:032x}.png" for number in range(25)}
        other = {f"users/{USER}x/images/{number:032x}.png" for number in range(3)}
        for key in mine | other:
            await store.put(key, key.encode())
        assert {info.key async for info in store.list(f"users/{USER}/")} == mine
        assert {info.key async for info in store.list(f"users/{USER}")} == mine | other
        assert {info.key async for info in store.list(f"users/{USER}/images/{0:031x}")} == {
            key for key in mine if key.startswith(f"users/{USER}/images/{0:031x}")
        }
        assert [info async for info in store.list("users/nobody/")] == []
        assert [info async for info in store.list("../")] == []

    async def test_a_list_contains_size_type_and_age(self, store: ObjectStore) -> None:
        key = f"users/{USER}/results/t/{1:032x}.json"
        await store.put(key, b"{}")
        (info,) = [info async for info in store.list("users/")]
        assert (info.key, info.size_bytes, info.content_type) == (key, 2, "application/json")
        assert abs(info.modified_at - datetime.now(UTC)) < timedelta(minutes=5)

    async def test_urls_and_keys_map_to_each_other(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/png")
        url = store.url(key)
        assert url.endswith("/" + key)
        assert store.key_of(url) == key
        base = url.removesuffix(key)
        for odd in (
            "",
            key,
            "https://elsewhere.example/" + key,
            base,
            base + "../" + key,
            base + "/" + key,
            url + "?x=1",
            url + "#x",
            url.replace("://", "://user@", 1),
            base.rstrip("/") + ".evil.example/" + key,
            url.upper(),
        ):
            assert store.key_of(odd) is None, odd

    async def test_discarding_partial_writes_keeps_complete_objects(self, store: ObjectStore) -> None:
        key = new_image_key(USER, "image/png")
        await store.put(key, b"whole")
        await store.discard_partial_writes(datetime.now(UTC) + timedelta(days=2))
        assert await store.get(key) == b"whole"

    async def test_a_working_store_passes_its_check_and_can_be_closed_twice(self, store: ObjectStore) -> None:
        await store.check()
        await store.aclose()
        await store.aclose()

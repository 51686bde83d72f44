"""The R2 adapter on a real S3 server."""

import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from s3seg.adapters.r2 import R2ObjectStore
from s3seg.errors import ConfigurationError, NotFoundError, UnavailableError
from s3seg.tasks.object_keys import new_image_key
from s3seg.testing import ObjectStoreSuite
from tests.cloud.parts.processes import free_ports
from tests.cloud.parts.seaweed import (
    ACCESS_KEY,
    BUCKET,
    PUBLIC_BUCKET,
    READER_ACCESS_KEY,
    READER_SECRET_KEY,
    SECRET_KEY,
)

pytestmark = pytest.mark.anyio


def r2(s3, **changes):
    known = {
        "endpoint_url": s3.endpoint,
        "bucket": BUCKET,
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SecretStr(SECRET_KEY),
        "public_base": "https://objects.example/files",
        "timeout_s": 5.0,
    }
    return R2ObjectStore(**{**known, **changes})


@pytest.fixture
async def store(s3):
    s3.empty()
    store = r2(s3)
    yield store
    await store.aclose()


@pytest.fixture
def key():
    return new_image_key(str(uuid.uuid4()), "image/png")


class TestR2ObjectStore(ObjectStoreSuite):
    @pytest.fixture
    async def store(self, s3):
        s3.empty()
        store = r2(s3)
        yield store
        await store.aclose()


async def test_a_public_bucket_serves_objects_itself(s3, key):
    store = r2(s3, bucket=PUBLIC_BUCKET, public_base=f"{s3.endpoint}/{PUBLIC_BUCKET}")
    await store.put(key, b"picture")
    assert await store.presign(key, expires_s=60) is None
    answer = httpx.get(store.url(key))
    assert (answer.content, answer.headers["content-type"]) == (b"picture", "image/png")
    assert answer.headers["cache-control"] == "private, max-age=60, must-revalidate"
    await store.aclose()


async def test_a_private_bucket_is_served_through_presigned_urls_only(s3, key):
    store = r2(s3, public=False)
    await store.put(key, b"picture")
    address = await store.presign(key, expires_s=60)
    assert SECRET_KEY not in address
    assert httpx.get(address).content == b"picture"
    plain, _, signature = address.partition("?")
    assert httpx.get(plain).status_code == 403
    assert httpx.get(f"{plain.replace(key, 'users/other.png')}?{signature}").status_code == 403
    assert httpx.put(address, content=b"mine now").status_code == 403
    await store.aclose()


async def test_a_presigned_url_expires(s3, store, key, monkeypatch):
    private = r2(s3, public=False)
    await private.put(key, b"picture")
    monkeypatch.setattr("botocore.auth.get_current_datetime", _a_minute_ago)
    assert httpx.get(await private.presign(key, expires_s=90)).content == b"picture"
    assert httpx.get(await private.presign(key, expires_s=30)).status_code == 403
    await private.aclose()


def _a_minute_ago(remove_tzinfo=True):
    return (datetime.now(UTC) - timedelta(minutes=1)).replace(tzinfo=None)


async def test_a_working_store_passes_the_probe(store):
    await store.probe()
    assert [info async for info in store.list("checks/")] == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"secret_access_key": SecretStr("wrong-secret-value")}, "S3SEG_R2_SECRET_ACCESS_KEY"),
        ({"access_key_id": "nobody"}, "S3SEG_R2_ACCESS_KEY_ID"),
        ({"bucket": "no-such-bucket"}, "S3SEG_R2_BUCKET"),
        ({"endpoint_url": "not a url"}, "S3SEG_R2_ENDPOINT_URL"),
    ],
)
async def test_a_wrong_setting_is_named(s3, change, named):
    store = r2(s3, **change)
    with pytest.raises(ConfigurationError) as refused:
        await store.probe()
    assert named in str(refused.value)
    assert "wrong-secret-value" not in str(refused.value) + repr(store)
    await store.aclose()


async def test_the_probe_detects_a_read_only_token(s3):
    store = r2(s3, access_key_id=READER_ACCESS_KEY, secret_access_key=SecretStr(READER_SECRET_KEY))
    await store.check()
    with pytest.raises(ConfigurationError, match="may read and write"):
        await store.probe()
    await store.aclose()


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_wrong_clock_is_reported(s3, monkeypatch, key, hours):
    """botocore gets a wrong time, and the server rejects the request."""
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime",
        lambda remove_tzinfo=True: (datetime.now(UTC) + timedelta(hours=hours)).replace(tzinfo=None),
    )
    store = r2(s3)
    for attempt in (store.check(), store.put(key, b"x")):
        with pytest.raises(ConfigurationError, match="NTP"):
            await attempt
    await store.aclose()


def test_a_key_of_the_wrong_length_is_reported_as_a_wrong_key(s3):
    """This response is specific to R2."""
    said = {"Code": "InvalidArgument", "Message": "Credential access key has length 64, should be 32"}
    refused = r2(s3)._translated(ClientError({"Error": said}, "GetObject"))
    assert isinstance(refused, ConfigurationError)
    assert "S3SEG_R2_ACCESS_KEY_ID" in str(refused)


async def test_a_store_that_does_not_respond_is_unavailable(s3, key):
    (port,) = free_ports(1)
    store = r2(s3, endpoint_url=f"http://127.0.0.1:{port}", timeout_s=1.0)
    for attempt in (store.put(key, b"x"), store.get(key), store.check(), store.delete(key)):
        with pytest.raises(UnavailableError):
            await attempt
    await store.aclose()


async def test_an_absent_object_is_not_found_by_presigned_readers_either(s3, key):
    store = r2(s3, public=False)
    with pytest.raises(NotFoundError):
        await store.get(key)
    assert httpx.get(await store.presign(key, expires_s=60)).status_code == 404
    await store.aclose()


async def test_a_presigned_put_stores_what_was_signed_once_and_nothing_else(s3, key):
    store = r2(s3)
    put = await store.presign_put(key, size_bytes=7, expires_s=60)
    assert SECRET_KEY not in put.url
    async with httpx.AsyncClient() as http:

        async def send(body, **headers):
            return (await http.put(put.url, content=body, headers={**put.headers, **headers})).status_code

        async def in_chunks(body):
            yield body

        assert await send(b"<script>", **{"Content-Length": "8"}) == 403, "another length"
        assert await send(in_chunks(b"more than seven bytes")) == 403, "a length that is not told"
        assert await send(b"picture", **{"Content-Type": "text/html"}) == 403
        assert await send(b"picture", **{"Cache-Control": "public, max-age=31536000"}) == 403
        without = {name: value for name, value in put.headers.items() if name != "If-None-Match"}
        assert (await http.put(put.url, content=b"picture", headers=without)).status_code == 403
        elsewhere = put.url.replace(key, new_image_key(str(uuid.uuid4()), "image/png"))
        assert (await http.put(elsewhere, content=b"picture", headers=put.headers)).status_code == 403
        assert (await http.get(put.url)).status_code == 403, "it is no permission to read"
        with pytest.raises(NotFoundError):
            await store.get(key)
        assert await send(b"picture") == 200
        assert await send(b"another") == 412, "objects never change"
    assert await store.get(key) == b"picture"
    await store.aclose()


async def test_a_presigned_put_expires(s3, key, monkeypatch):
    store = r2(s3)
    monkeypatch.setattr("botocore.auth.get_current_datetime", _a_minute_ago)
    put = await store.presign_put(key, size_bytes=7, expires_s=30)
    async with httpx.AsyncClient() as http:
        assert (await http.put(put.url, content=b"picture", headers=put.headers)).status_code == 403
    await store.aclose()

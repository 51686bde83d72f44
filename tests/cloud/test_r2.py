"""The R2 adapter passes the object store's suite on a real S3 server, and reads through trouble on the way."""

import uuid

import anyio
import httpx
import pytest
from pydantic import SecretStr

from s3seg.adapters.r2 import R2ObjectStore
from s3seg.errors import ConfigurationError, NotFoundError, UnavailableError
from s3seg.object_keys import new_image_key
from s3seg.testing import ObjectStoreSuite

from .parts.processes import free_ports
from .parts.seaweed import ACCESS_KEY, BUCKET, PUBLIC_BUCKET, SECRET_KEY

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
def anyio_backend():
    return "asyncio"


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


async def test_a_public_bucket_serves_its_addresses_itself(s3, key):
    store = r2(s3, bucket=PUBLIC_BUCKET, public_base=f"{s3.endpoint}/{PUBLIC_BUCKET}")
    await store.put(key, b"picture")
    assert await store.presign(key, expires_s=60) is None
    answer = httpx.get(store.url(key))
    assert (answer.content, answer.headers["content-type"]) == (b"picture", "image/png")
    assert "immutable" in answer.headers["cache-control"]
    await store.aclose()


async def test_a_private_bucket_is_served_by_presigned_addresses_only(s3, key):
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


async def test_a_presigned_address_ends(s3, store, key):
    private = r2(s3, public=False)
    await private.put(key, b"picture")
    address = await private.presign(key, expires_s=1)
    for _ in range(100):
        if httpx.get(address).status_code == 403:
            break
        await anyio.sleep(0.1)
    else:
        pytest.fail("the address never ended")
    await private.aclose()


async def test_a_probe_finds_a_store_that_does_all_we_need(store):
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


async def test_a_store_that_is_not_there_is_unavailable(s3, key):
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

"""Uploads straight to the bucket, signed inside workerd with the keys of an R2 API token.

An S3 server judges the signed requests. At Cloudflare it and the binding are the same bucket; here they are not, so the
tests copy what that server has stored into the binding.
"""

from __future__ import annotations

import httpx
import pytest

from s3seg.client import AsyncClient
from tests.cloud.deployment import submit
from tests.cloud.parts.processes import free_ports
from tests.cloud.parts.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.cloudflare.conftest import deployed
from tests.cloudflare.remote_objects import RemoteObjectStore
from tests.cloudflare.runtime import make_project, run_worker
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signing(folder, database_server, worker_parts, s3):
    """A Worker that has the keys of a token for the bucket."""
    bucket = {"S3SEG_R2_ENDPOINT_URL": s3.endpoint, "S3SEG_R2_BUCKET": BUCKET}
    token = {"S3SEG_R2_ACCESS_KEY_ID": ACCESS_KEY, "S3SEG_R2_SECRET_ACCESS_KEY": SECRET_KEY}
    with deployed(folder, database_server, worker_parts, secrets=token, **bucket) as made:
        yield made
        assert SECRET_KEY not in (made.folder / "project" / "worker.log").read_text()


@pytest.fixture
def ann(signing, s3):
    s3.empty()
    with signing.user() as (_, http):
        yield http


def begin(http, data, content_type="image/png"):
    answer = http.post("/api/v1/uploads", json={"content_type": content_type, "size_bytes": len(data)})
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


def send(begun, data, **headers):
    return httpx.put(begun["url"], content=data, headers=begun["headers"] | headers).status_code


def complete(http, begun):
    return http.post(f"/api/v1/uploads/{begun['upload_id']}/complete", json={})


async def copy_to_the_binding(signing, s3):
    """Copy all objects from the S3 server into the binding."""
    store = RemoteObjectStore(signing.url)
    for entry in s3.client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        await store.put(entry["Key"], s3.client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read())


async def test_a_picture_is_sent_to_the_bucket_and_registered_once(signing, s3, ann):
    assert ann.get("/health").json()["data"]["direct_uploads"] is True
    data = encoded()
    begun = begin(ann, data)
    assert send(begun, data) == 200
    assert "have not been sent" in complete(ann, begun).json()["error"]["message"], "the binding has it not yet"
    await copy_to_the_binding(signing, s3)
    images = [complete(ann, begun).json()["data"] for _ in range(2)]
    assert images[0] == images[1]
    assert (images[0]["content_type"], images[0]["size_bytes"]) == ("image/png", len(data))
    assert httpx.get(images[0]["image_url"]).content == data
    assert submit(ann, images[0]["image_url"], "car")


def test_the_bucket_refuses_what_was_not_signed(ann):
    data = encoded()
    begun = begin(ann, data)
    assert send(begun, data + b"x") == 403, "another size"
    assert send(begun, data, **{"Content-Type": "text/html"}) == 403
    assert httpx.put(begun["url"], content=data).status_code == 403, "without the condition that the key is free"
    elsewhere = {**begun, "url": begun["url"].replace(begun["upload_id"], f"{'0' * 32}.png")}
    assert send(elsewhere, data) == 403
    assert httpx.get(begun["url"]).status_code == 403
    assert send(begun, data) == 200
    assert send(begun, data) == 412, "nothing is replaced"


async def test_what_is_no_such_picture_is_refused_and_removed(signing, s3, ann):
    for data, message in ((b"<html>no picture</html>", "PNG"), (encoded("JPEG"), "announced as image/png")):
        s3.empty()
        begun = begin(ann, data)
        assert send(begun, data) == 200
        await copy_to_the_binding(signing, s3)
        refused = complete(ann, begun)
        assert (refused.status_code, message in refused.json()["error"]["message"]) == (400, True)
        assert complete(ann, begun).status_code == 404


async def test_our_client_sends_pictures_to_the_bucket(signing, s3, ann):
    class Copying(httpx.AsyncHTTPTransport):
        """Does after a PUT what the tests do in place of R2."""

        async def handle_async_request(self, request):
            answer = await super().handle_async_request(request)
            if request.method == "PUT":
                await copy_to_the_binding(signing, s3)
            else:
                paths.append(request.url.path)
            return answer

    paths: list[str] = []
    token = ann.headers["authorization"].removeprefix("Bearer ")
    async with (
        httpx.AsyncClient(transport=Copying()) as http,
        AsyncClient(signing.url, token=token, http=http) as s3seg,
    ):
        image = await s3seg.upload(encoded())
    assert image.size_bytes == len(encoded())
    assert "/api/v1/upload" not in paths
    assert paths[:2] == ["/health", "/api/v1/uploads"]


def test_the_page_may_send_pictures_to_the_bucket(signing, s3):
    policy = httpx.get(f"{signing.url}/").headers["content-security-policy"]
    (sources,) = [part for part in policy.split(";") if part.strip().startswith("connect-src")]
    assert s3.endpoint in sources


def test_without_the_keys_of_a_token_uploads_go_through_the_edge(worker):
    with worker.user() as (_, http):
        assert http.get("/health").json()["data"]["direct_uploads"] is False
        refused = http.post("/api/v1/uploads", json={"content_type": "image/png", "size_bytes": 7})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_half_a_token_is_a_mistake_that_the_log_names(tmp_path, worker_parts):
    (port,) = free_ports(1)
    settings = {
        "S3SEG_PUBLIC_BASE_URL": f"http://127.0.0.1:{port}/files",
        "S3SEG_SUPABASE_URL": "https://x.supabase.co",
        "S3SEG_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
        "S3SEG_R2_ENDPOINT_URL": "https://0123abcd.r2.cloudflarestorage.com",
        "S3SEG_R2_BUCKET": BUCKET,
    }
    half = {"S3SEG_R2_ACCESS_KEY_ID": ACCESS_KEY}
    project = make_project(tmp_path / "project", worker_parts.modules, settings, secrets=half)
    with run_worker(project, worker_parts.tools, port, ready="/__test/memory"):
        answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert "the Worker needs S3SEG_R2_SECRET_ACCESS_KEY, which is not set" in (project / "worker.log").read_text()

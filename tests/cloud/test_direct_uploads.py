"""Uploads straight to the storage: the edge on a real S3 server, called as clients call it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from pydantic import SecretStr

import s3seg
from s3seg.adapters.local_auth import user_id_of
from s3seg.client import AsyncClient
from s3seg.tasks.object_keys import new_image_key
from tests.cloud.parts.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.helpers.pictures import encoded
from tests.helpers.running_edge import running

pytestmark = pytest.mark.anyio
PNG = {"content_type": "image/png", "size_bytes": len(encoded())}


@pytest.fixture
async def service(s3, tmp_path):
    s3.empty()
    bucket = {
        "object_store": "r2",
        "r2_endpoint_url": s3.endpoint,
        "r2_bucket": BUCKET,
        "r2_access_key_id": ACCESS_KEY,
        "r2_secret_access_key": SecretStr(SECRET_KEY),
        "r2_public": False,
    }
    async with running(tmp_path, **bucket) as service:
        yield service


@pytest.fixture
async def ann(service):
    return await service.user("ann")


async def begin(user, **asked):
    answer = await user("POST", "/api/v1/uploads", json={**PNG, **asked})
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


async def send(begun, body):
    async with httpx.AsyncClient() as http:
        return (await http.put(begun["url"], content=body, headers=begun["headers"])).status_code


async def complete(user, begun, **asked):
    return await user("POST", f"/api/v1/uploads/{begun['upload_id']}/complete", json=asked)


async def stored(service):
    return [info.key async for info in service.parts.objects.list("users/")]


async def test_a_picture_is_sent_to_the_storage_and_registered_once(service, ann):
    assert (await service.http.get("/health")).json()["data"]["direct_uploads"] is True
    project = (await ann("POST", "/api/v1/projects", json={"name": "mine"})).json()["data"]["id"]
    begun = await begin(ann)
    assert await send(begun, encoded()) == 200
    first, second = await asyncio.gather(*(complete(ann, begun, project_id=project) for _ in range(2)))
    images = [answer.json()["data"] for answer in (first, second, await complete(ann, begun))]
    assert all(image == images[0] for image in images)
    assert (images[0]["content_type"], images[0]["size_bytes"]) == ("image/png", len(encoded()))
    task = await ann("POST", "/api/v1/segment", json={"image_url": images[0]["image_url"], "text_prompt": "cat"})
    assert task.status_code == 202


async def test_what_is_no_such_picture_is_refused_and_removed(service, ann):
    jpeg = encoded("JPEG")
    for body, message in (
        (b"<html>no picture</html>", "PNG"),
        (jpeg, "announced as image/png"),
        (encoded()[:-9], "truncated"),
    ):
        begun = await begin(ann, size_bytes=len(body))
        assert await send(begun, body) == 200
        refused = await complete(ann, begun)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST")
        assert message in refused.json()["error"]["message"]
        assert await stored(service) == []
        assert (await complete(ann, begun)).status_code == 404


async def test_only_its_owner_completes_an_upload(service, ann):
    bob = await service.user("bob")
    begun = await begin(ann)
    assert await send(begun, encoded()) == 200
    assert (await complete(bob, begun)).status_code == 404
    assert (await complete(ann, begun)).status_code == 200


async def test_nothing_sent_is_nothing_stored(service, ann):
    absent = (await complete(ann, await begin(ann))).json()["error"]
    assert (absent["code"], "have not been sent" in absent["message"]) == ("NOT_FOUND", True)
    for upload_id in ("x", "..%2f..%2fx.png", f"{'0' * 32}.json", f"{'0' * 31}.png", f"{'0' * 32}.png"):
        assert (await complete(ann, {"upload_id": upload_id})).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"size_bytes": 10 * 2**20}, 201),
        ({"size_bytes": 10 * 2**20 + 1}, 413),
        ({"size_bytes": 0}, 400),
        ({"content_type": "image/svg+xml"}, 400),
        ({"content_type": "application/json"}, 400),
    ],
)
async def test_what_may_be_announced(service, ann, asked, status):
    answer = await ann("POST", "/api/v1/uploads", json={**PNG, **asked})
    assert answer.status_code == status


async def test_uploads_that_are_never_completed_are_collected(service, ann):
    from datetime import UTC, datetime, timedelta

    from s3seg.tasks.maintenance import collect_garbage

    begun = await begin(ann)
    assert await send(begun, encoded()) == 200
    parts = service.parts
    later = datetime.now(UTC) + timedelta(hours=25)
    removed = await collect_garbage(parts.objects, parts.accounts, before=later)
    assert removed.objects == 1
    assert await stored(service) == []


async def test_the_client_uses_it_where_it_is_offered(service, ann, monkeypatch):
    through_the_edge: list[str] = []
    transport = Mixed(service.app, through_the_edge)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        AsyncClient("http://edge", token=ann.token, http=http) as client,
    ):
        image = await client.upload(encoded())
        assert image.size_bytes == len(encoded())
        await client.upload(encoded(size=(9, 7)))
    assert through_the_edge == [
        "/health",
        *2 * ["/api/v1/uploads", "/api/v1/uploads/*/complete"],
    ], "it asks once, and no picture passes the edge"
    assert all("authorization" not in headers for headers in transport.sent_elsewhere)
    assert len(transport.sent_elsewhere) == 2


async def test_the_client_falls_back_where_the_storage_is_out_of_reach(service, ann, monkeypatch):
    monkeypatch.setattr("s3seg.client._core._STORAGE_RETRIES", s3seg.client.RetryPolicy(retries=0))
    paths: list[str] = []
    transport = Mixed(service.app, paths, reaches_storage=False)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        AsyncClient("http://edge", token=ann.token, http=http) as client,
    ):
        for _ in range(2):
            assert (await client.upload(encoded())).size_bytes == len(encoded())
    assert paths == ["/health", "/api/v1/uploads", "/api/v1/uploads/*/complete", "/api/v1/upload", "/api/v1/upload"]


class Mixed(httpx.AsyncBaseTransport):
    """The edge in this process, and the network for everything else."""

    def __init__(self, app, paths, *, reaches_storage=True):
        self._edge = httpx.ASGITransport(app)
        self._network = httpx.AsyncHTTPTransport()
        self._paths = paths
        self._reaches_storage = reaches_storage
        self.sent_elsewhere: list[httpx.Headers] = []

    async def handle_async_request(self, request):
        if request.url.host == "edge":
            parts = request.url.path.split("/")
            self._paths.append("/".join("*" if part.endswith(".png") else part for part in parts))
            return await self._edge.handle_async_request(request)
        self.sent_elsewhere.append(request.headers)
        if not self._reaches_storage:
            raise httpx.ConnectError("out of reach")
        return await self._network.handle_async_request(request)

    async def aclose(self):
        await self._network.aclose()


async def test_a_service_with_another_storage_says_so(tmp_path):
    async with running(tmp_path) as service:
        ann = await service.user("ann")
        assert (await service.http.get("/health")).json()["data"]["direct_uploads"] is False
        refused = await ann("POST", "/api/v1/uploads", json=PNG)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "NOT_FOUND")
        key = new_image_key(user_id_of("ann"), "image/png")
        await service.parts.objects.put(key, encoded())
        assert (await complete(ann, {"upload_id": key.rpartition("/")[2]})).status_code == 200, "whoever stored it"

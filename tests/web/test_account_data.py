"""Times after which images and results end, the archive of all that a user has, and the end of an account, by HTTP."""

import io
import tarfile

import pytest

from s3seg.api.additions import DeletedAccountResponse, MeResponse
from s3seg.api.edge import ResultDetailResponse, ResultsListResponse, SegmentResponse, TaskResponse, UploadResponse
from s3seg.tasks.maintenance import remove_ended
from tests.helpers.pictures import encoded
from tests.web.contract_bodies import data_of, error_of
from tests.web.secured_routes import ID

pytestmark = pytest.mark.anyio


async def test_nothing_about_ends_is_told_where_nothing_ends(service, ann):
    image = data_of(await ann.upload(), UploadResponse)
    assert "expires_at" not in image
    assert "retention_s" not in data_of(await ann("GET", "/api/v1/me"), MeResponse)


async def test_users_set_when_images_and_results_end_and_are_told(service, ann):
    image = data_of(await ann.upload(expires_in_s="3600"), UploadResponse)
    assert image["expires_at"]
    body = {"image_url": image["image_url"], "text_prompt": "cat", "expires_in_s": 600}
    task = data_of(await ann("POST", "/api/v1/segment", json=body), SegmentResponse, 202)
    path = f"/api/v1/tasks/{task['task_id']}"
    assert "expires_at" not in data_of(await ann("GET", path), TaskResponse)
    data_of(await ann("POST", f"{path}/cancel"), TaskResponse)
    told = data_of(await ann("GET", path), TaskResponse)["expires_at"]
    result = await ann("GET", f"/api/v1/results/{task['task_id']}")
    assert data_of(result, ResultDetailResponse)["expires_at"] == told
    (listed,) = data_of(await ann("GET", "/api/v1/results"), ResultsListResponse)["results"]
    assert listed["expires_at"] == told


@pytest.mark.parametrize("asked", ["59", "0", "-1", "1e3", "soon", str(10**12)])
async def test_times_that_are_not_allowed_are_refused(service, ann, asked):
    response = await ann.upload(expires_in_s=asked)
    assert error_of(response) == (400, "INVALID_REQUEST")
    assert "expires_in_s" in response.json()["error"]["message"]


async def test_the_archive_is_a_tar_file(service, ann):
    image = data_of(await ann.upload(), UploadResponse)
    response = await ann("GET", "/api/v1/me/export")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-tar")
    assert "ratelimit" in response.headers
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        assert f"images/{image['image_id']}/image.json" in archive.getnames()
    assert error_of(await ann("GET", "/api/v1/me/export?after=x")) == (400, "INVALID_REQUEST")
    assert (await ann("HEAD", "/api/v1/me/export")).content == b""


async def test_an_account_is_deleted_with_its_own_id_and_refused_from_then_on(service, ann, bob):
    await ann.upload()
    me = data_of(await ann("GET", "/api/v1/me"), MeResponse)["user_id"]
    for confirm in ("", "?confirm=", "?confirm=yes", f"?confirm={ID}"):
        assert error_of(await ann("DELETE", f"/api/v1/me{confirm}")) == (400, "INVALID_REQUEST")
    path = f"/api/v1/me?confirm={me}"
    first = data_of(await ann("DELETE", path), DeletedAccountResponse, 202)
    assert first["kept"]
    again = data_of(await ann("DELETE", path), DeletedAccountResponse, 202)
    assert again == first
    for method, refused in (("GET", "/api/v1/me"), ("GET", "/api/v1/results"), ("GET", f"/api/v1/tasks/{ID}")):
        response = await ann(method, refused)
        assert error_of(response) == (401, "AUTH_INVALID")
        assert response.headers["www-authenticate"] == "Bearer"
    body = {"image_url": "x", "text_prompt": "cat"}
    assert error_of(await ann("POST", "/api/v1/segment", json=body))[0] == 401
    assert error_of(await ann.upload())[0] == 401
    assert (await bob("GET", "/api/v1/me")).status_code == 200


async def test_nothing_is_left_of_a_deleted_account_and_others_keep_the_same_picture(service, ann, bob):
    gone = data_of(await ann.upload(), UploadResponse)
    kept = data_of(await bob.upload(), UploadResponse)  # the same bytes
    me = data_of(await ann("GET", "/api/v1/me"), MeResponse)["user_id"]
    data_of(await ann("DELETE", f"/api/v1/me?confirm={me}"), DeletedAccountResponse, 202)
    removed = await remove_ended(service.parts.objects, service.parts.accounts)
    assert (removed.images, removed.objects, removed.accounts) == (1, 1, 1)
    assert [info.key async for info in service.parts.objects.list(f"users/{me}/")] == []
    assert (await service.http.get(gone["image_url"])).status_code == 404
    assert (await service.http.get(kept["image_url"])).content == encoded()

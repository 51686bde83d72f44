"""POST /api/v1/upload, as a client sees it."""

import asyncio
import re

import pytest
from python_multipart.multipart import parse_options_header

from s3seg.api.edge import (
    UploadResponse,
)
from tests.helpers.pictures import encoded
from tests.helpers.running_edge import running
from tests.web.contract_bodies import data_of, error_of

pytestmark = pytest.mark.anyio


class TestUpload:
    async def test_an_image_is_stored_and_served_back(self, service, ann):
        stored = data_of(await ann.upload(), UploadResponse)
        assert set(stored) == {"image_id", "image_url", "size_bytes", "content_type"}
        assert (stored["size_bytes"], stored["content_type"]) == (len(encoded()), "image/png")
        assert stored["image_url"].startswith(service.settings.public_base_url + "/users/")
        served = await service.http.get(stored["image_url"].removeprefix("http://127.0.0.1:8000"))
        assert (served.status_code, served.content) == (200, encoded())
        assert served.headers["content-type"] == "image/png"
        assert served.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in served.headers["content-security-policy"]

    async def test_the_content_type_that_the_client_claims_is_ignored(self, ann):
        files = {"file": ("cat.svg", encoded("WEBP"), "text/html")}
        stored = data_of(await ann("POST", "/api/v1/upload", files=files), UploadResponse)
        assert stored["content_type"] == "image/webp"
        assert stored["image_url"].endswith(".webp")

    @pytest.mark.parametrize(
        "data",
        [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", encoded()[:-20], encoded("GIF"), b"%PDF-1.7"],
        ids=["empty", "gif head", "svg as png", "truncated", "gif", "pdf"],
    )
    async def test_a_file_that_is_not_a_png_jpeg_or_webp_is_400(self, service, ann, data):
        assert error_of(await ann.upload(data)) == (400, "INVALID_REQUEST")
        assert [info async for info in service.parts.objects.list("")] == []

    async def test_an_upload_that_arrives_too_slowly_is_400(self, ann, monkeypatch):
        monkeypatch.setattr("s3seg.web.multipart._GRACE_S", 0.2)
        monkeypatch.setattr("s3seg.web.multipart._MIN_BYTES_PER_S", 1000)

        async def body():
            yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
            while True:  # 100 bytes a second
                await asyncio.sleep(0.1)
                yield b"0123456789"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with asyncio.timeout(20):
            response = await ann("POST", "/api/v1/upload", content=body(), headers=headers)
        assert error_of(response) == (400, "INVALID_REQUEST")
        assert "too slowly" in response.json()["error"]["message"]

    async def test_an_upload_that_arrives_slowly_but_steadily_is_accepted(self, ann, monkeypatch):
        monkeypatch.setattr("s3seg.web.multipart._GRACE_S", 10)
        monkeypatch.setattr("s3seg.web.multipart._MIN_BYTES_PER_S", 10)
        head = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        whole = head + encoded() + b"\r\n--x--\r\n"

        async def body():
            for start in range(0, len(whole), 50):
                await asyncio.sleep(0.01)
                yield whole[start : start + 50]

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await ann("POST", "/api/v1/upload", content=body(), headers=headers)
        assert data_of(response, UploadResponse)["size_bytes"] == len(encoded())

    async def test_more_pixels_than_allowed_are_400(self, tmp_path):
        async with running(tmp_path, upload_megapixels=47e-6) as service:
            user = await service.user()
            response = await user.upload(encoded(size=(8, 6)))
            assert error_of(response) == (400, "INVALID_REQUEST")
            assert "too large" in response.json()["error"]["message"]

    @pytest.mark.parametrize("field", ["not-a-uuid", "0" * 2000, "5b0c9a52-7a0e-4c7e-8f31-3f6f1c2d4e90"])
    async def test_a_project_that_is_not_the_callers_is_400(self, service, ann, field):
        assert error_of(await ann.upload(project_id=field)) == (400, "INVALID_REQUEST")
        assert [info async for info in service.parts.objects.list("")] == []

    async def test_a_project_of_the_callers_is_kept(self, service, ann):
        project = (await ann("POST", "/api/v1/projects", json={"name": "cats"})).json()["data"]["id"]
        stored = data_of(await ann.upload(project_id=project.upper()), UploadResponse)
        found = await service.parts.task_store.get_image(await _identity(service, ann), stored["image_id"])
        assert found.project_id == project

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/json", b"{}"),
            ("", b""),
            ("multipart/form-data", b"--x\r\n"),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=x", b"--y\r\n\r\n"),
            ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
            ),
            ("multipart/form-data; boundary=" + "x" * 300, b""),
            ("multipart/form-data; boundary=x" + ";" * 5_000, b"--x--\r\n"),
            (
                "multipart/form-data; boundary=x",
                b"--x\r\nContent-Disposition: " + b";" * 5_000 + b"\r\n\r\n\r\n--x--\r\n",
            ),
            ("multipart/form-data; boundary=x", b"--x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n\r\n--x--\r\n"),
        ],
    )
    async def test_a_body_that_is_not_an_upload_is_400(self, ann, content_type, body):
        response = await ann("POST", "/api/v1/upload", content=body, headers={"Content-Type": content_type})
        assert error_of(response) == (400, "INVALID_REQUEST")

    @pytest.mark.parametrize("unit", [b";", b'";', b'\\";', b"a=b;", b";a*=utf-8''%", b"x"])
    async def test_no_header_of_a_part_reaches_the_parser_beyond_4_kb(self, ann, monkeypatch, unit):
        parsed = []

        def parse(value):
            parsed.append(len(value))
            return parse_options_header(value)

        monkeypatch.setattr("s3seg.web.multipart.parse_options_header", parse)
        body = b"--x\r\nContent-Disposition: form-data; " + unit * (9 * 2**20 // len(unit)) + b"\r\n\r\n\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await ann("POST", "/api/v1/upload", content=body, headers=headers)
        assert error_of(response) == (400, "INVALID_REQUEST")
        assert max(parsed) <= 4096

    async def test_two_files_are_400(self, ann):
        files = [("file", ("a.png", encoded(), "image/png"))] * 2
        assert error_of(await ann("POST", "/api/v1/upload", files=files)) == (400, "INVALID_REQUEST")

    async def test_a_part_without_a_file_name_is_a_file_too(self, ann):
        body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + encoded() + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        data_of(await ann("POST", "/api/v1/upload", content=body, headers=headers), UploadResponse)

    async def test_image_urls_cannot_be_guessed_from_others(self, ann):
        urls = [await ann.image_url() for _ in range(3)]
        assert len({url.rpartition("/")[2] for url in urls}) == 3
        assert all(re.fullmatch(r"[0-9a-f]{32}\.png", url.rpartition("/")[2]) for url in urls)


async def _identity(service, user):
    return await service.parts.authenticator.authenticate(user.token)

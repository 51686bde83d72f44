"""What forms, phones, browsers and HTTP libraries send is understood, or refused with the remedy."""

from __future__ import annotations

import base64
import gzip

import pytest

from s3seg.api.edge import ResultDetailResponse, SegmentResponse, UploadResponse
from s3seg.errors import ConfigurationError
from tests.helpers.pictures import encoded
from tests.helpers.running_edge import running
from tests.web.contract_bodies import data_of, error_of

pytestmark = pytest.mark.anyio
ORIGIN = "https://app.example"


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path, cors_origins=(ORIGIN,)) as service:
        yield service


@pytest.fixture
async def ann(service):
    return await service.user()


def message_of(response):
    assert error_of(response) == (400, "INVALID_REQUEST")
    return response.json()["error"]["message"]


class TestForms:
    @pytest.mark.parametrize("blank", ["", " ", "\r\n"])
    async def test_a_blank_field_is_no_field(self, ann, blank):
        data_of(await ann.upload(project_id=blank), UploadResponse)
        data_of(await ann.segment(project_id=blank), SegmentResponse, 202)
        assert (await ann("GET", "/api/v1/results", params={"project_id": blank})).json()["data"]["total"] == 1

    @pytest.mark.parametrize("sent", ["multipart/form-data", "multipart/form-data;", "Multipart/Form-Data; x=y"])
    async def test_a_missing_boundary_is_named_with_its_remedy(self, ann, sent):
        response = await ann("POST", "/api/v1/upload", content=encoded(), headers={"Content-Type": sent})
        assert "let the HTTP library set that header" in message_of(response)

    @pytest.mark.parametrize(
        "preamble",
        [
            b"\r\n",
            b"\r\n\r\n",
            b"This is a multi-part message in MIME format.\r\n",
            b"Two lines,\r\nthe second with --B in it, and --Bx\r\n",
            b"--Bx\r\n",
            b"-\r\n--\r\n",
            b"x" * 8000 + b"\r\n",
        ],
    )
    @pytest.mark.parametrize("step", [1, 7, 100_000])
    async def test_lines_before_the_first_boundary_are_ignored(self, ann, preamble, step):
        part = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + encoded()
        body = preamble + part + b"\r\n--B--\r\nand an epilogue"

        async def chunks():
            for start in range(0, len(body), step):
                yield body[start : start + step]

        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        response = await ann("POST", "/api/v1/upload", content=chunks(), headers=headers)
        assert data_of(response, UploadResponse)["size_bytes"] == len(encoded())

    @pytest.mark.parametrize("path", ["/api/v1/upload", "/api/v1/segment", "/api/v1/projects"])
    async def test_a_compressed_body_is_named(self, ann, path):
        kind = "multipart/form-data; boundary=B" if path.endswith("upload") else "application/json"
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        response = await ann("POST", path, content=gzip.compress(b"{}"), headers=headers)
        assert message_of(response) == "the body must not be compressed, but Content-Encoding is 'gzip'"

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ([1], "the body must be a JSON object"),
            ("text", "the body must be a JSON object"),
            ({"image_url": "x", "text_prompts": "car"}, "text_prompts: must be a list"),
            ({"image_url": "x", "text_prompt": ["car"]}, "text_prompt: must be text"),
        ],
    )
    async def test_a_body_of_the_wrong_shape_is_told_in_words_of_json(self, ann, body, words):
        assert message_of(await ann("POST", "/api/v1/segment", json=body)) == words

    async def test_a_boundary_that_does_not_come_is_refused(self, ann):
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        response = await ann("POST", "/api/v1/upload", content=b"x" * 100_000, headers=headers)
        assert "does not begin with the boundary" in message_of(response)


def container(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(100)


class TestFormats:
    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (container(b"heic", b"mif1", b"heic"), "HEIC"),
            (container(b"mif1", b"heic"), "HEIC"),
            (container(b"avif", b"mif1"), "AVIF"),
            (container(b"mif1", b"avif"), "AVIF"),
            (container(b"isom"), "video"),
            (container(b"qt  "), "video"),
            (encoded("GIF"), "GIF"),
            (encoded("BMP"), "BMP"),
            (encoded("TIFF"), "TIFF"),
            (encoded("ICO"), "ICO"),
            (b"%PDF-1.7\n", "PDF"),
            (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b'{"error": "not found"}', "JSON"),
            (base64.b64encode(encoded()), "base64"),
            (base64.b64encode(encoded("JPEG")), "base64"),
            (base64.b64encode(encoded("WEBP")), "base64"),
            (b"data:image/png;base64," + base64.b64encode(encoded()), "data: URL"),
            (b"\xff\x0a" + bytes(50), "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "JPEG 2000"),
            (b"8BPS\0\1" + bytes(50), "Photoshop"),
            (b"PK\3\4" + bytes(50), "ZIP"),
            (b"\x89PNG\n\x1a\n" + bytes(50), "damaged PNG"),
        ],
    )
    async def test_a_refusal_names_the_format_and_those_that_are_accepted(self, ann, data, name):
        message = message_of(await ann.upload(data))
        refusal, _, remedy = message.partition("; ")
        assert refusal.startswith("file: not a PNG, JPEG or WebP picture, but a")
        assert name in refusal
        assert remedy

    async def test_what_is_not_recognised_is_told_what_is_accepted(self, ann):
        assert message_of(await ann.upload(b"\1\2\3\4" * 10)) == "file: not a PNG, JPEG or WebP picture"


class TestPictures:
    @pytest.mark.parametrize("size", [10, 3000, 100_000])
    async def test_a_data_url_is_refused_with_the_remedy(self, ann, size):
        url = f"data:image/png;base64,{base64.b64encode(bytes(size)).decode()}"
        message = message_of(await ann("POST", "/api/v1/segment", json={"image_url": url, "text_prompt": "cat"}))
        assert "a data: URL is not accepted" in message
        assert "POST /api/v1/upload" in message
        assert "AAAA" not in message


class TestPrompts:
    async def test_prompts_are_stored_in_their_normal_form(self, ann):
        task = data_of(await ann.segment(text_prompt="red  car.\n"), SegmentResponse, 202)["task_id"]
        result = data_of(await ann("GET", f"/api/v1/results/{task}"), ResultDetailResponse)
        assert result["text_prompt"] == "red car"

    async def test_a_duplicate_is_counted_and_charged_once(self, ann):
        body = {"image_url": await ann.image_url(), "text_prompts": ["cat", "dog", "cat\n", " dog", "\u201ccat\u201d"]}
        task = data_of(await ann("POST", "/api/v1/segment", json=body), SegmentResponse, 202)["task_id"]
        result = data_of(await ann("GET", f"/api/v1/results/{task}"), ResultDetailResponse)
        assert result["text_prompt"] == "cat, dog"
        assert await ann.credits() == 8

    async def test_a_repeat_of_a_request_may_be_typed_differently(self, ann):
        url, headers = await ann.image_url(), {"Idempotency-Key": "k"}
        tasks = {
            (await ann("POST", "/api/v1/segment", json=body, headers=headers)).json()["data"]["task_id"]
            for body in (
                {"image_url": url, "text_prompt": "cat"},
                {"image_url": url, "text_prompt": "cat\n"},
                {"image_url": url, "text_prompts": ["cat", "cat"]},
            )
        }
        assert len(tasks) == 1
        assert await ann.credits() == 9


class TestOrigins:
    ASK = "authorization,sentry-trace,baggage,traceparent,x-requested-with"

    async def ask(self, service, headers, origin=ORIGIN):
        request = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        }
        return await service.http.options("/api/v1/segment", headers=request)

    async def test_a_page_may_send_headers_of_its_tools(self, service):
        response = await self.ask(service, self.ASK)
        assert response.status_code == 200
        allowed = {name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")}
        assert set(self.ASK.split(",")) <= allowed

    async def test_a_page_of_another_origin_may_not(self, service):
        response = await self.ask(service, self.ASK, origin="https://evil.example")
        assert response.status_code == 400
        assert "access-control-allow-origin" not in response.headers

    async def test_the_headers_can_be_limited(self, tmp_path):
        async with running(tmp_path / "b", cors_origins=(ORIGIN,), cors_headers=("Sentry-Trace",)) as service:
            assert (await self.ask(service, "authorization, prefer, sentry-trace")).status_code == 200
            assert (await self.ask(service, "baggage")).status_code == 400

    async def test_an_origin_may_be_written_as_a_url(self, tmp_path):
        async with running(tmp_path / "b", cors_origins=("https://App.Example/",)) as service:
            assert (await self.ask(service, "prefer")).headers["access-control-allow-origin"] == ORIGIN

    @pytest.mark.parametrize(
        "origin", ["app.example", "https://app.example/page", "ftp://app.example", "https://u:p@h"]
    )
    async def test_what_is_no_origin_is_refused(self, tmp_path, origin):
        with pytest.raises(ConfigurationError, match="CORS_ORIGINS"):
            async with running(tmp_path / "b", cors_origins=(origin,)):
                pass

    async def test_what_is_no_header_is_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="CORS_HEADERS"):
            async with running(tmp_path / "b", cors_headers=("x y",)):
                pass

"""The edge behind a proxy that serves it under a path, which the proxy removes or keeps."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest

from s3seg.api.edge import SegmentResponse, UploadResponse
from s3seg.web.prefix import prefix_of_files
from tests.helpers.pictures import encoded
from tests.helpers.running_edge import running
from tests.web.contract_bodies import data_of, error_of

pytestmark = pytest.mark.anyio


def proxy(app, prefix, *, keeps_path=False, tells=False):
    """A proxy at http://outside that serves the application under a path, and nothing else."""

    async def forward(scope, receive, send):
        path = scope["path"]
        assert path == prefix or path.startswith(f"{prefix}/"), path
        inner = path if keeps_path else path.removeprefix(prefix) or "/"
        headers = [*scope["headers"], *([(b"x-forwarded-prefix", prefix.encode())] if tells else [])]
        await app({**scope, "path": inner, "raw_path": inner.encode(), "headers": headers}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(forward), base_url="http://outside")


@pytest.mark.parametrize("prefix", ["/seg", "/a/b", "/api", "/files", "/playground"])
@pytest.mark.parametrize("way", ["setting", "header", "both"])
async def test_everything_works_behind_a_proxy_that_removes_the_prefix(tmp_path, prefix, way):
    base = "http://outside/elsewhere" if way == "header" else f"http://outside{prefix}/files"
    async with (
        running(tmp_path, public_base_url=base) as service,
        proxy(service.app, prefix, tells=way != "setting") as http,
    ):
        token = {"Authorization": f"Bearer {(await service.user()).token}"}
        files = {"file": ("a.png", encoded(), "image/png")}
        image = data_of(await http.post(f"{prefix}/api/v1/upload", files=files, headers=token), UploadResponse)
        if way != "header":
            assert (await http.get(image["image_url"])).content == encoded()
        body = {"image_url": image["image_url"], "text_prompt": "cat"}
        response = await http.post(f"{prefix}/api/v1/segment", json=body, headers=token)
        data_of(response, SegmentResponse, 202)
        assert response.headers["location"].startswith(f"{prefix}/api/v1/tasks/")
        assert (await http.get(response.headers["location"], headers=token)).status_code == 200
        project = await http.post(f"{prefix}/api/v1/projects", json={"name": "p"}, headers=token)
        assert project.headers["location"].startswith(f"{prefix}/api/v1/projects/")
        assert (await http.get(f"{prefix}/openapi.json")).json()["servers"] == [{"url": prefix}]
        assert error_of(await http.get(f"{prefix}/nowhere")) == (404, "NOT_FOUND")
        for address in (prefix, f"{prefix}/"):
            await check_page(http, address, home=f"{prefix}/")


async def check_page(http, address, *, home):
    """Check that everything that the page links to is there, wherever the browser says it is."""
    page = (await http.get(address)).text
    links = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    assert len(links) >= 5
    for link in links:
        assert (await http.get(urljoin(f"http://outside{address}", link))).status_code == 200, link
    assert f'<meta name="s3seg-home" content="{home}">' in page


async def test_a_proxy_may_keep_the_prefix(tmp_path):
    async with (
        running(tmp_path, public_base_url="http://outside/seg/files") as service,
        proxy(service.app, "/seg", keeps_path=True) as http,
    ):
        user = await service.user()
        headers = {"Authorization": f"Bearer {user.token}"}
        assert (await http.get("/seg/api/v1/me", headers=headers)).status_code == 200
        assert (await http.get(await user.image_url())).content == encoded()
        await check_page(http, "/seg/", home="/seg/")
        assert (await service.http.get("/health")).status_code == 200  # probed without the proxy


@pytest.mark.parametrize(
    "prefix",
    ["//evil.example", "https://evil.example", "/a//b", "/../x", '/"><script>', "/a b", "a", "/é", "/" + "x" * 300],
)
async def test_a_prefix_that_is_none_is_ignored(tmp_path, prefix):
    async with running(tmp_path) as service:
        user = await service.user()
        headers = [(b"x-forwarded-prefix", prefix.encode()), (b"authorization", f"Bearer {user.token}".encode())]
        project = await service.http.post("/api/v1/projects", json={"name": "p"}, headers=headers)
        assert project.headers["location"].startswith("/api/v1/projects/")
        assert 'href="playground/' in (await service.http.get("/", headers=headers)).text


async def test_pages_of_two_prefixes_are_two_pages(tmp_path):
    async with running(tmp_path) as service:
        answers = [
            await service.http.get("/", headers={"X-Forwarded-Prefix": prefix} if prefix else {})
            for prefix in ("", "/a", "/b")
        ]
        assert len({answer.headers["etag"] for answer in answers}) == 3
        assert all(answer.headers["vary"] == "X-Forwarded-Prefix" for answer in answers)


@pytest.mark.parametrize(
    ("base", "prefix"),
    [
        ("http://127.0.0.1:8000/files", ""),
        ("https://me.example/seg/files", "/seg"),
        ("https://me.example/seg/files/", "/seg"),
        ("https://me.example/a/b/files", "/a/b"),
        ("https://cdn.example", ""),
        ("https://me.example//evil.example/files", ""),
    ],
)
def test_the_prefix_is_what_is_before_files(base, prefix):
    assert prefix_of_files(base) == prefix

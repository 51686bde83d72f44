"""The page's files as the edge serves them."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from s3seg.app import edge_app
from s3seg.app.settings import Settings
from s3seg.commands.serve import print_access
from tests.helpers.serving import served
from tests.web.playground.conftest import FILES

NAMES = sorted(path.name for path in FILES.iterdir() if path.suffix in (".css", ".js", ".svg"))
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def edge(folder, **settings):
    return edge_app(Settings(_env_file=None, data_dir=folder, **settings))


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    with (
        served(edge(tmp_path_factory.mktemp("edge"), public_base_url='https://cdn.example/"><b>')) as url,
        httpx.Client(base_url=url) as http,
    ):
        yield http


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_every_file_is_served_with_its_type_and_a_policy(http):
    for path, content_type in [("/", "text/html"), *((f"/playground/{n}", TYPES[n.split(".")[1]]) for n in NAMES)]:
        response = http.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"] == f"{content_type}; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-cache"
        policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in response.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/playground/page.js"])
def test_a_file_that_has_not_changed_is_not_sent_again(http, path):
    first = http.get(path)
    again = http.get(path, headers={"If-None-Match": f'W/{first.headers["etag"]}, "other"'})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(first.content))


@pytest.mark.parametrize(
    "path",
    ["/playground", "/playground/", "/playground/__init__.py", "/playground/index.html", "/playground/..%2flogs.py"],
)
def test_nothing_else_is_served(http, path):
    response = http.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_other_methods_are_405(http):
    response = http.post("/")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD"


def test_the_page_is_not_part_of_the_api(http):
    paths = http.get("/openapi.json").json()["paths"]
    assert paths
    assert not [path for path in paths if path == "/" or "playground" in path]


def test_the_page_knows_the_public_base_and_it_is_escaped(http):
    metas = [attrs for tag, attrs in Elements(http.get("/").text).found if tag == "meta"]
    assert {"name": "s3seg-public-base", "content": 'https://cdn.example/"><b>'} in metas


def test_the_page_loads_its_own_files_only_by_relative_addresses(http):
    page = http.get("/").text
    wanted = set()
    for tag, attrs in Elements(page).found:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag
        wanted |= {attrs[name] for name in ("src", "href") if name in attrs}
        if tag == "script":
            assert attrs["src"]
    assert "<style" not in page
    for module in FILES.glob("*.js"):
        text = module.read_text(encoding="utf-8")
        wanted |= {f"playground/{name}" for name in re.findall(r'from "\./(.+?)"', text)}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
        assert "https://" not in text
    assert not [address for address in wanted if address.startswith("/") or "://" in address]
    assert {f"playground/{name}" for name in NAMES} <= wanted  # nothing is left over
    for address in wanted:
        assert http.get(f"/{address}").status_code == 200


def test_pictures_of_the_page_are_whole():
    for picture in FILES.glob("*.svg"):
        assert ET.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_it_works_where_the_edge_is_mounted(tmp_path):
    outer = Starlette(routes=[Mount("/tools/seg", app=edge(tmp_path))])
    with served(outer) as url, httpx.Client(base_url=url, follow_redirects=True) as http:
        page = http.get("/tools/seg")  # the address without a slash is redirected
        assert str(page.url) == f"{url}/tools/seg/"
        for _, attrs in Elements(page.text).found:
            for name in ("src", "href"):
                if name in attrs:
                    assert http.get(str(page.url.join(attrs[name]))).status_code == 200


def test_it_can_be_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("S3SEG_PLAYGROUND", "false")
    with served(edge(tmp_path)) as url:
        for path in ("/", "/playground/page.js"):
            response = httpx.get(url + path)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("store", "allowed"), [("files", "'self'"), ("r2", "'self' https://account.r2.example")])
def test_a_page_may_talk_to_the_bucket_that_it_uploads_to_and_reads_from(tmp_path, store, allowed):
    bucket = {
        "object_store": store,
        "r2_endpoint_url": "https://account.r2.example/",
        "r2_bucket": "pictures",
        "r2_access_key_id": "id",
        "r2_secret_access_key": SecretStr("secret"),
    }
    with served(edge(tmp_path, **bucket)) as url:
        policy = httpx.get(url).headers["content-security-policy"]
    assert f"connect-src {allowed};" in policy


@pytest.mark.parametrize("on", [True, False])
def test_the_printed_access_has_a_link_that_carries_the_token(tmp_path, capsys, on):
    settings = Settings(_env_file=None, data_dir=tmp_path, playground=on)
    print_access(settings, "http://127.0.0.1:8000", "ann", show_token=True)
    address, token, *link, life = capsys.readouterr().out.splitlines()
    assert address == "export S3SEG_URL=http://127.0.0.1:8000"
    assert re.fullmatch(r"The token is valid for 24 hours; for another one, run: s3seg token --user ann", life)
    secret = token.removeprefix("export S3SEG_TOKEN=")
    assert link == ([f"In a browser: http://127.0.0.1:8000/#token={secret}"] if on else [])

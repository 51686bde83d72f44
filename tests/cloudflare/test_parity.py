"""The same requests to the edge under uvicorn and to the Worker: the same answers, and the same OpenAPI document."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.cloud.deployment import deploy
from tests.helpers.attacks import BAD_PROMPTS, NOT_PICTURES, bomb
from tests.helpers.pictures import encoded

NOT_COMPARED = {
    *("date", "server", "connection", "keep-alive", "transfer-encoding", "content-length"),  # the server's own
    "x-request-id",
}
CHANGING = (
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)",
    r"[0-9a-f]{32}",
    r"http://127\.0\.0\.1:\d+",
)
DIRECT = r'"direct_uploads":(?:true|false)'  # this Worker has no keys to sign requests with


@pytest.fixture(scope="module")
def under_uvicorn(folder, database_server, s3):
    with deploy(folder, database_server, s3, public=True, gpu=False) as made:
        yield made


def normalised(text: str) -> str:
    for pattern in CHANGING:
        text = re.sub(pattern, "*", text)
    text = re.sub(DIRECT, "", text)
    return re.sub(r'"[^"]*"', lambda found: found[0] if "*" not in found[0] else '"*"', text)


def described(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    headers = {name: value for name, value in answer.headers.items() if name not in NOT_COMPARED}
    for name in ("etag", "ratelimit", "retry-after"):
        if name in headers:
            headers[name] = re.sub(r"[0-9a-f]{6,}|t=\d+|^\d+$", "*", headers[name])
    headers = {name: normalised(value) for name, value in headers.items()}
    if "content-security-policy" in headers:  # the page may send pictures to a storage that takes them
        headers["content-security-policy"] = re.sub("connect-src [^;]*", "", headers["content-security-policy"])
    return answer.status_code, headers, normalised(answer.text)


@contextlib.contextmanager
def two_users(worker, other) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Create a user of each edge; Cloudflare and wrangler compress answers, which is not compared."""
    with worker.user() as (_, here), other.user() as (_, there):
        for http in (here, there):
            http.headers["Accept-Encoding"] = "identity"
        yield here, there


def everything(http: httpx.Client) -> dict[str, httpx.Response]:
    """Make one request of every kind, and return the answers by what was asked."""
    answers: dict[str, httpx.Response] = {}

    def ask(name: str, method: str, path: str, **options) -> httpx.Response:
        answers[name] = http.request(method, path, **options)
        return answers[name]

    image = ask("upload", "POST", "/api/v1/upload", files={"file": ("a.png", encoded(), "image/png")}).json()["data"]
    body = {"image_url": image["image_url"], "text_prompt": "car"}
    task_id = ask("submit", "POST", "/api/v1/segment", json=body).json()["data"]["task_id"]
    task = ask("task", "GET", f"/api/v1/tasks/{task_id}")
    ask("unchanged", "GET", f"/api/v1/tasks/{task_id}", headers={"If-None-Match": task.headers["etag"]})
    ask("head", "HEAD", f"/api/v1/tasks/{task_id}")
    ask("results", "GET", "/api/v1/results", params={"page": 1, "limit": 5})
    ask("result", "GET", f"/api/v1/results/{task_id}")
    ask("cancel", "POST", f"/api/v1/tasks/{task_id}/cancel")
    ask("events", "GET", f"/api/v1/tasks/{task_id}/events")
    ask("wait for what has ended", "POST", "/api/v1/segment", json=body, headers={"Prefer": "wait=1"})
    project = ask("project", "POST", "/api/v1/projects", json={"name": "고양이"}).json()["data"]
    ask("projects", "GET", "/api/v1/projects")
    ask("rename", "PATCH", f"/api/v1/projects/{project['id']}", json={"name": "x"})
    ask("remove", "DELETE", f"/api/v1/projects/{project['id']}")
    ask("me", "GET", "/api/v1/me")
    ask("delete image", "DELETE", f"/api/v1/images/{image['image_id']}")
    ask("delete result", "DELETE", f"/api/v1/results/{task_id}")
    for name, path in [
        ("auth", "/api/v1/auth"),
        ("health", "/health"),
        ("ready", "/ready"),
        ("unknown", "/api/v1/nothing"),
        ("encoded", "/api/v1/tasks/%00%2e%2e"),
        ("slash", "/api/v1/me/"),
        ("no object", f"/files/users/{uuid.uuid4()}/images/{uuid.uuid4().hex}.png"),
        ("no key", "/files/../etc/passwd"),
        ("page style", "/playground/style.css"),
        ("bad page", "/api/v1/results?page=0"),
        ("bad limit", "/api/v1/results?limit=x"),
    ]:
        ask(name, "GET", path)
    ask("method", "PUT", "/api/v1/me")
    ask("no json", "POST", "/api/v1/segment", content=b"{", headers={"Content-Type": "application/json"})
    ask("no form", "POST", "/api/v1/upload", content=b"x", headers={"Content-Type": "text/plain"})
    ask("foreign image", "POST", "/api/v1/segment", json={**body, "image_url": "https://x.example/a.png"})
    ask("no token", "GET", "/api/v1/me", headers={"Authorization": ""})
    ask("basic", "GET", "/api/v1/me", headers={"Authorization": "Basic x"})
    ask("bad token", "GET", "/api/v1/me", headers={"Authorization": "Bearer a.b.c"})
    ask("bomb", "POST", "/api/v1/upload", files={"file": ("a.png", bomb(100_000, 100_000), "image/png")})
    return answers


def test_every_request_has_the_same_answer(worker, under_uvicorn):
    with two_users(worker, under_uvicorn) as (here, there):
        mine, expected = everything(here), everything(there)
    for name, answer in expected.items():
        assert described(mine[name]) == described(answer), name


def test_the_openapi_document_is_the_same_to_the_byte(worker, under_uvicorn):
    assert httpx.get(f"{worker.url}/openapi.json").content == httpx.get(f"{under_uvicorn.url}/openapi.json").content


def in_turn(worker, other, ask: Callable[[httpx.Client], httpx.Response]) -> tuple[httpx.Response, httpx.Response]:
    with two_users(worker, other) as (here, there):
        return ask(here), ask(there)


@pytest.mark.parametrize("prompt", range(len(BAD_PROMPTS)))
def test_bad_prompts_are_refused_with_the_same_words(worker, under_uvicorn, prompt):
    text = BAD_PROMPTS[prompt].encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    body = {"image_url": "https://x.example/a.png", "text_prompt": text}
    mine, expected = in_turn(worker, under_uvicorn, lambda http: http.post("/api/v1/segment", json=body))
    assert described(mine) == described(expected)
    assert mine.status_code == 400


@pytest.mark.parametrize("kind", NOT_PICTURES)
def test_files_that_are_no_pictures_are_refused_with_the_same_status_and_code(worker, under_uvicorn, kind):
    file = {"file": ("a.png", NOT_PICTURES[kind], "image/png")}
    mine, expected = in_turn(worker, under_uvicorn, lambda http: http.post("/api/v1/upload", files=file))
    assert (mine.status_code, mine.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert (expected.status_code, expected.json()["error"]["code"]) == (400, "INVALID_REQUEST")

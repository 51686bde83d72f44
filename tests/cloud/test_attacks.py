"""Malicious requests to an edge on real servers: what is refused, and what remains in bucket and database."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
import uuid

import httpx
import pytest

from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from tests.cloud.deployment import deploy, submit, upload
from tests.cloud.parts.seaweed import PUBLIC_BUCKET
from tests.helpers.attacks import (
    BAD_PROMPTS,
    GOOD_PROMPTS,
    NOT_PICTURES,
    bomb,
    forget_memory_peak,
    memory_peak_mb,
    multipart,
    polyglots,
)
from tests.helpers.pictures import encoded

ENTERPRISE = {"provider": "email", "tier": "enterprise"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def deployment(folder, database_server, s3):
    """An edge on a public bucket, without workers."""
    with deploy(folder, database_server, s3, public=True, gpu=False) as made:
        yield made


@pytest.fixture
def user(deployment):
    """The id of a user with high rate limits, and an HTTP client of the edge with their token."""
    with deployment.user(app_metadata=ENTERPRISE) as (user_id, http):
        yield user_id, http


@pytest.fixture
def stored(deployment, s3, user):
    """Return a function that lists the user's keys in the bucket and in the table of images."""
    user_id, _ = user

    def look():
        found = s3.client.list_objects_v2(Bucket=PUBLIC_BUCKET, Prefix=f"users/{user_id}/").get("Contents", [])
        rows = deployment.project.database.execute(
            "select object_key from public.images where user_id = %s", (user_id,)
        )
        return sorted(entry["Key"] for entry in found), sorted(key for (key,) in rows)

    return look


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


# --- files


@pytest.mark.parametrize("kind", [*NOT_PICTURES, "truncated png", "truncated jpeg", "gif"])
def test_a_file_that_is_not_an_image_is_refused_and_not_stored(user, stored, kind):
    others = {
        "truncated png": encoded("PNG", (64, 64))[:-20],
        "truncated jpeg": encoded("JPEG", (64, 64))[:-100],
        "gif": encoded("GIF"),
    }
    data = NOT_PICTURES[kind] if kind in NOT_PICTURES else others[kind]
    _, http = user
    answer = http.post("/api/v1/upload", files={"file": ("cat.png", data, "image/png")})
    assert error_of(answer) == (400, "INVALID_REQUEST")
    assert stored() == ([], [])


@pytest.mark.parametrize("size", [(100_000, 100_000), (1 << 30, 1), (10_001, 5_000)])
def test_a_decompression_bomb_is_refused_without_decoding_it(deployment, user, stored, size):
    _, http = user
    upload(http, encoded())  # load everything that is loaded on first use
    before = stored()
    forget_memory_peak(deployment.edge.pid)
    peak = memory_peak_mb(deployment.edge.pid)
    assert error_of(http.post("/api/v1/upload", files={"file": bomb(*size)})) == (400, "INVALID_REQUEST")
    assert memory_peak_mb(deployment.edge.pid) - peak < 25
    assert stored() == before


@pytest.mark.parametrize("kind", polyglots())
def test_a_polyglot_file_is_served_as_an_image(user, stored, kind):
    """Whatever content type the client claims: a browser runs no script in an image/png."""
    _, http = user
    data = polyglots()[kind]
    answer = http.post("/api/v1/upload", files={"file": ("evil.html", data, "text/html")})
    image_type = f"image/{kind.split()[-1]}"
    assert answer.json()["data"]["content_type"] == image_type
    served = httpx.get(answer.json()["data"]["image_url"])
    assert (served.content, served.headers["content-type"]) == (data, image_type)
    objects, rows = stored()
    assert objects == rows
    assert not any("html" in key for key in objects)


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_are_stored_and_one_byte_more_is_refused(user, stored, chunked):
    _, http = user
    png = encoded()
    for size, status in [(MAX_UPLOAD_BYTES + 1, 413), (MAX_UPLOAD_BYTES, 200)]:
        data = png + bytes(size - len(png))
        body = multipart(data)
        pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
        answer = http.post("/api/v1/upload", content=pieces if chunked else body, headers=FORM)
        assert answer.status_code == status, answer.text
        if status == 413:
            assert stored() == ([], [])
        else:
            assert httpx.get(answer.json()["data"]["image_url"]).content == data


def test_forty_megabytes_without_a_length_are_refused_without_buffering(deployment, user, stored):
    _, http = user

    def forty():
        yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(640):
            yield bytes(65_536)
        yield b"\r\n--x--\r\n"

    http.get("/api/v1/me")
    forget_memory_peak(deployment.edge.pid)
    peak = memory_peak_mb(deployment.edge.pid)
    assert error_of(http.post("/api/v1/upload", content=forty(), headers=FORM)) == (413, "FILE_TOO_LARGE")
    assert memory_peak_mb(deployment.edge.pid) - peak < 25
    assert stored() == ([], [])


def test_an_interrupted_upload_is_not_stored(user, stored):
    _, http = user
    body = multipart(encoded())
    for _ in range(10):
        with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as connection:
            connection.sendall(
                f"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
                + f"Authorization: {http.headers['authorization']}\r\nContent-Type: {FORM['Content-Type']}\r\n".encode()
                + b"\r\n"
                + body[:-10]
            )
    image_url = upload(http, encoded())
    objects, rows = stored()
    assert objects == rows == [image_url.partition(f"/{PUBLIC_BUCKET}/")[2]]


# --- prompts and URLs


def test_an_invalid_prompt_is_refused_without_charge(user):
    _, http = user
    image_url = upload(http, encoded())
    for prompt in BAD_PROMPTS:
        body = json.dumps({"image_url": image_url, "text_prompts": ["cat", prompt]})
        answer = http.post("/api/v1/segment", content=body, headers={"Content-Type": "application/json"})
        assert error_of(answer) == (400, "INVALID_REQUEST"), prompt
    assert http.get("/api/v1/results").json()["data"]["total"] == 0
    assert http.get("/api/v1/me").json()["data"]["credits"] == 10


def test_an_unusual_prompt_is_returned_unchanged(user):
    _, http = user
    image_url = upload(http, encoded())
    for prompt in GOOD_PROMPTS:
        task = submit(http, image_url, prompt)
        assert http.get(f"/api/v1/results/{task}").json()["data"]["text_prompt"] == prompt


def test_only_the_urls_of_own_uploads_are_accepted(deployment, user):
    _, http = user
    own = upload(http, encoded())
    with deployment.user() as (_, other):
        foreign = upload(other, encoded())
    host = deployment.public_base.partition("://")[2]
    answers = {
        address: http.post("/api/v1/segment", json={"image_url": address, "text_prompt": "cat"})
        for address in (
            *(foreign, f"{own}?x", f"{own}#x", f"{own}/", own.upper(), own.replace("http://", "https://")),
            *(f"http://evil.example@{host}", f"{deployment.public_base}/../secret.png", f"{own}/../../secret.png"),
            *("http://169.254.169.254/latest/meta-data", "file:///etc/passwd", deployment.project.gateway.url, "//x"),
            *(deployment.public_base, f"{deployment.public_base}@evil.example/x.png", f"{deployment.url}/files/x.png"),
        )
    }
    assert {error_of(answer) for answer in answers.values()} == {(400, "INVALID_REQUEST")}
    assert {answer.json()["error"]["message"] for answer in answers.values()} == {
        "image_url is not one of your uploads"
    }
    assert http.get("/api/v1/me").json()["data"]["credits"] == 10


# --- tokens


def test_a_token_similar_to_a_cached_one_is_refused(deployment, user):
    """Verified tokens are cached by the whole token, so a changed one is verified anew."""
    _, http = user
    assert http.get("/api/v1/me").status_code == 200
    good = http.headers["authorization"].removeprefix("Bearer ")
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = json.dumps({**claims, "sub": str(uuid.uuid4())}).encode()
    other = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
    for token in (
        f"{head}.{other}.{signature}", f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}.", good[:-1],
        f"{good}A", good.swapcase(), f"{head}..{signature}",
    ):  # fmt: skip
        answer = httpx.get(f"{deployment.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert error_of(answer) == (401, "AUTH_INVALID"), token
    assert http.get("/api/v1/me").status_code == 200


# --- logs

FORGED = '{"level": "error", "message": "forged"}'


def test_a_client_cannot_forge_log_lines(deployment, user):
    """Each line is one JSON object without control characters, whatever names, headers and paths contain."""
    _, http = user
    evil = f"\r\n{FORGED}\r\n\x1b[2J\u2028{FORGED}\u0085"
    image_url = upload(http, encoded())
    http.post("/api/v1/upload", content=multipart(encoded(), filename=f"a{evil}.png"), headers=FORM)
    http.post("/api/v1/upload", content=multipart(encoded(), content_type=f"image/png{evil}"), headers=FORM)
    http.post("/api/v1/projects", json={"name": f"zoo{evil}"})
    http.post("/api/v1/projects", json={"name": FORGED})
    http.post("/api/v1/segment", json={"image_url": f"{image_url}{evil}", "text_prompt": FORGED})
    http.post("/api/v1/segment", json={"image_url": image_url, "text_prompt": f"cat{evil}"})
    body = {"image_url": image_url, "text_prompt": FORGED}
    for header in ("Idempotency-Key", "X-Request-Id", "User-Agent", "X-Forwarded-For"):
        http.post("/api/v1/segment", json=body, headers={header: FORGED})
        http.post("/api/v1/segment", json=body, headers={header: "\x1b[2J\x85\u00e9".encode("latin-1")})
    http.get("/api/v1/tasks/" + "".join(f"%{byte:02X}" for byte in evil.encode()))
    http.get("/api/v1/results", params={"cursor": evil, evil[:20]: "x"})
    http.request("FORGED", "/api/v1/results")
    marker = http.get("/api/v1/results").json()["meta"]["request_id"]

    log = deployment.folder / "edge.log"
    give_up = time.monotonic() + 30
    while marker not in log.read_text() and time.monotonic() < give_up:
        time.sleep(0.05)  # the log is written by another thread
    raw = log.read_bytes()
    assert marker.encode() in raw
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw)
    lines = [json.loads(line) for line in raw.decode().split("\n")[:-1]]
    assert len(lines) > 15
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert not any(line["message"] == "forged" or line["level"] == "error" for line in lines)
    assert "\u2028" not in raw.decode()
    assert "\u0085" not in raw.decode()

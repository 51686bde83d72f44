"""What attackers send, at an edge on the real parts: what is refused, and what is left of it in bucket and database."""

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
from tests.cloud.houses import house, submit, upload
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
def guarded(folder, database_server, s3):
    """An edge on a public bucket; nobody works on its tasks."""
    with house(folder, database_server, s3, public=True, gpu=False) as made:
        yield made


@pytest.fixture
def somebody(guarded):
    """A user who may do much in a minute: their id, and a client of the edge that speaks for them."""
    with guarded.user(app_metadata=ENTERPRISE) as (user_id, http):
        yield user_id, http


@pytest.fixture
def left(guarded, s3, somebody):
    """What there is of the user's in the bucket and in the table of images."""
    user_id, _ = somebody

    def look():
        found = s3.client.list_objects_v2(Bucket=PUBLIC_BUCKET, Prefix=f"users/{user_id}/").get("Contents", [])
        rows = guarded.project.database.execute("select object_key from public.images where user_id = %s", (user_id,))
        return sorted(entry["Key"] for entry in found), sorted(key for (key,) in rows)

    return look


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


# --- files


@pytest.mark.parametrize("kind", [*NOT_PICTURES, "truncated png", "truncated jpeg", "gif"])
def test_what_is_no_picture_is_refused_and_leaves_nothing(somebody, left, kind):
    others = {
        "truncated png": encoded("PNG", (64, 64))[:-20],
        "truncated jpeg": encoded("JPEG", (64, 64))[:-100],
        "gif": encoded("GIF"),
    }
    data = NOT_PICTURES[kind] if kind in NOT_PICTURES else others[kind]
    _, http = somebody
    answer = http.post("/api/v1/upload", files={"file": ("cat.png", data, "image/png")})
    assert error_of(answer) == (400, "INVALID_REQUEST")
    assert left() == ([], [])


@pytest.mark.parametrize("size", [(100_000, 100_000), (1 << 30, 1), (10_001, 5_000)])
def test_a_bomb_is_refused_before_it_goes_off(guarded, somebody, left, size):
    _, http = somebody
    upload(http, encoded())  # what is loaded with the first use is loaded
    before = left()
    forget_memory_peak(guarded.edge.pid)
    peak = memory_peak_mb(guarded.edge.pid)
    assert error_of(http.post("/api/v1/upload", files={"file": bomb(*size)})) == (400, "INVALID_REQUEST")
    assert memory_peak_mb(guarded.edge.pid) - peak < 25
    assert left() == before


@pytest.mark.parametrize("kind", polyglots())
def test_a_picture_that_is_something_else_too_is_served_as_the_picture(somebody, left, kind):
    """Whatever the client calls it: a browser that is told image/png runs no script of it."""
    _, http = somebody
    data = polyglots()[kind]
    answer = http.post("/api/v1/upload", files={"file": ("evil.html", data, "text/html")})
    image_type = f"image/{kind.split()[-1]}"
    assert answer.json()["data"]["content_type"] == image_type
    served = httpx.get(answer.json()["data"]["image_url"])
    assert (served.content, served.headers["content-type"]) == (data, image_type)
    objects, rows = left()
    assert objects == rows
    assert not any("html" in key for key in objects)


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_reach_the_bucket_and_a_byte_more_does_not(somebody, left, chunked):
    _, http = somebody
    png = encoded()
    for size, status in [(MAX_UPLOAD_BYTES + 1, 413), (MAX_UPLOAD_BYTES, 200)]:
        data = png + bytes(size - len(png))
        body = multipart(data)
        pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
        answer = http.post("/api/v1/upload", content=pieces if chunked else body, headers=FORM)
        assert answer.status_code == status, answer.text
        if status == 413:
            assert left() == ([], [])
        else:
            assert httpx.get(answer.json()["data"]["image_url"]).content == data


def test_forty_megabytes_without_a_length_are_neither_kept_nor_stored(guarded, somebody, left):
    _, http = somebody

    def forty():
        yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(640):
            yield bytes(65_536)
        yield b"\r\n--x--\r\n"

    http.get("/api/v1/me")
    forget_memory_peak(guarded.edge.pid)
    peak = memory_peak_mb(guarded.edge.pid)
    assert error_of(http.post("/api/v1/upload", content=forty(), headers=FORM)) == (413, "FILE_TOO_LARGE")
    assert memory_peak_mb(guarded.edge.pid) - peak < 25
    assert left() == ([], [])


def test_an_upload_that_breaks_off_leaves_nothing(somebody, left):
    _, http = somebody
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
    objects, rows = left()
    assert objects == rows == [image_url.partition(f"/{PUBLIC_BUCKET}/")[2]]


# --- words and addresses


def test_what_can_be_no_prompt_is_refused_and_free(somebody):
    _, http = somebody
    image_url = upload(http, encoded())
    for prompt in BAD_PROMPTS:
        body = json.dumps({"image_url": image_url, "text_prompts": ["cat", prompt]})
        answer = http.post("/api/v1/segment", content=body, headers={"Content-Type": "application/json"})
        assert error_of(answer) == (400, "INVALID_REQUEST"), prompt
    assert http.get("/api/v1/results").json()["data"]["total"] == 0
    assert http.get("/api/v1/me").json()["data"]["credits"] == 10


def test_what_only_looks_odd_comes_back_unchanged(somebody):
    _, http = somebody
    image_url = upload(http, encoded())
    for prompt in GOOD_PROMPTS:
        task = submit(http, image_url, prompt)
        assert http.get(f"/api/v1/results/{task}").json()["data"]["text_prompt"] == prompt


def test_no_address_but_ones_own_uploads_is_taken(guarded, somebody):
    _, http = somebody
    own = upload(http, encoded())
    with guarded.user() as (_, other):
        foreign = upload(other, encoded())
    host = guarded.public_base.partition("://")[2]
    answers = {
        address: http.post("/api/v1/segment", json={"image_url": address, "text_prompt": "cat"})
        for address in (
            *(foreign, f"{own}?x", f"{own}#x", f"{own}/", own.upper(), own.replace("http://", "https://")),
            *(f"http://evil.example@{host}", f"{guarded.public_base}/../secret.png", f"{own}/../../secret.png"),
            *("http://169.254.169.254/latest/meta-data", "file:///etc/passwd", guarded.project.gateway.url, "//x"),
            *(guarded.public_base, f"{guarded.public_base}@evil.example/x.png", f"{guarded.url}/files/x.png"),
        )
    }
    assert {error_of(answer) for answer in answers.values()} == {(400, "INVALID_REQUEST")}
    assert {answer.json()["error"]["message"] for answer in answers.values()} == {
        "image_url is not one of your uploads"
    }
    assert http.get("/api/v1/me").json()["data"]["credits"] == 10


# --- tokens


def test_a_token_that_resembles_a_good_one_is_as_bad_as_any(guarded, somebody):
    """Verdicts are remembered by the whole token: nothing of a good one helps a changed one."""
    _, http = somebody
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
        answer = httpx.get(f"{guarded.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert error_of(answer) == (401, "AUTH_INVALID"), token
    assert http.get("/api/v1/me").status_code == 200


# --- logs

FORGED = '{"level": "error", "message": "forged"}'


def test_nothing_that_a_client_sends_makes_a_line_of_the_log(guarded, somebody):
    """Each line is one JSON object of ours, whatever names, headers and paths hold; and no terminal obeys it."""
    _, http = somebody
    evil = f"\r\n{FORGED}\r\n\x1b[2J\u2028{FORGED}\u0085"
    image_url = upload(http, encoded())
    http.post("/api/v1/upload", content=multipart(encoded(), filename=f"a{evil}.png"), headers=FORM)
    http.post("/api/v1/upload", content=multipart(encoded(), content_type=f"image/png{evil}"), headers=FORM)
    http.post("/api/v1/projects", json={"name": f"zoo{evil}"})
    http.post("/api/v1/projects", json={"name": FORGED})
    http.post("/api/v1/segment", json={"image_url": f"{image_url}{evil}", "text_prompt": FORGED})
    http.post("/api/v1/segment", json={"image_url": image_url, "text_prompt": f"cat{evil}"})
    order = {"image_url": image_url, "text_prompt": FORGED}
    for header in ("Idempotency-Key", "X-Request-Id", "User-Agent", "X-Forwarded-For"):
        http.post("/api/v1/segment", json=order, headers={header: FORGED})
        http.post("/api/v1/segment", json=order, headers={header: "\x1b[2J\x85\u00e9".encode("latin-1")})
    http.get("/api/v1/tasks/" + "".join(f"%{byte:02X}" for byte in evil.encode()))
    http.get("/api/v1/results", params={"cursor": evil, evil[:20]: "x"})
    http.request("FORGED", "/api/v1/results")
    marker = http.get("/api/v1/results").json()["meta"]["request_id"]

    log = guarded.folder / "edge.log"
    give_up = time.monotonic() + 30
    while marker not in log.read_text() and time.monotonic() < give_up:
        time.sleep(0.05)  # it is written by a thread of its own
    raw = log.read_bytes()
    assert marker.encode() in raw
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw)
    lines = [json.loads(line) for line in raw.decode().split("\n")[:-1]]
    assert len(lines) > 15
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert not any(line["message"] == "forged" or line["level"] == "error" for line in lines)
    assert "\u2028" not in raw.decode()
    assert "\u0085" not in raw.decode()

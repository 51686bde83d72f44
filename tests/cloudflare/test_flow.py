"""The contract from upload to mask, with the edge inside workerd and everything behind it real but for R2."""

from __future__ import annotations

import io
import json
import time
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from s3seg import Segmenter
from tests.cloud.deployment import finished, submit, upload
from tests.cloud.parts.gateway import PUBLISHABLE_KEY
from tests.cloudflare.conftest import GPU_KEY
from tests.helpers.attacks import NOT_PICTURES, bomb
from tests.helpers.pictures import encoded

PICTURE = Path(__file__).parents[2] / "examples" / "pictures" / "street.png"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_from_an_upload_to_the_mask_in_the_bucket(worker, gpu):
    picture = PICTURE.read_bytes()
    expected = {one.prompt: one.label_map() for one in Segmenter().segment(PICTURE, ["car", "house"])}
    with worker.user() as (_, http):
        image_url = upload(http, picture)
        assert httpx.get(image_url).content == picture
        task = finished(http, submit(http, image_url, "car", "house"))
        assert task["status"] == "done", task
        result = http.get(f"/api/v1/results/{task['result_id']}").json()["data"]
        assert set(result["labels"]) == {prompt for prompt, mask in expected.items() if mask.any()} != set()
        for found in result["metadata"]["prompts"]:
            mask = np.asarray(Image.open(io.BytesIO(httpx.get(found["mask_url"]).content)))
            np.testing.assert_array_equal(mask, expected[found["labels"][0]])
        assert [row["id"] for row in http.get("/api/v1/results").json()["data"]["results"]] == [task["task_id"]]
        assert http.get("/api/v1/me").json()["data"]["credits"] == 8


def test_a_preferred_wait_is_answered_with_the_finished_task(worker, gpu):
    with worker.user() as (_, http):
        body = {"image_url": upload(http, PICTURE.read_bytes()), "text_prompt": "car"}
        answer = http.post("/api/v1/segment", json=body, headers={"Prefer": "wait=50"})
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, "done")


def test_a_repeated_submit_is_the_same_task_and_is_debited_once(worker):
    with worker.user() as (_, http):
        body = {"image_url": upload(http, encoded()), "text_prompt": "car"}
        answers = [http.post("/api/v1/segment", json=body, headers={"Idempotency-Key": "one"}) for _ in range(3)]
        assert len({answer.json()["data"]["task_id"] for answer in answers}) == 1
        assert http.get("/api/v1/me").json()["data"]["credits"] == 9
        other = http.post("/api/v1/segment", json={**body, "text_prompt": "x"}, headers={"Idempotency-Key": "one"})
        assert code(other) == (400, "INVALID_REQUEST")


def test_an_unchanged_task_is_304_and_a_cancelled_one_is_refunded(worker):
    with worker.user() as (_, http):
        task_id = submit(http, upload(http, encoded()), "car")
        first = http.get(f"/api/v1/tasks/{task_id}")
        again = http.get(f"/api/v1/tasks/{task_id}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert http.post(f"/api/v1/tasks/{task_id}/cancel").json()["data"]["status"] == "error"
        assert http.get("/api/v1/me").json()["data"]["credits"] == 10


def test_an_event_stream_begins_at_once_and_ends_with_the_task(worker):
    with worker.user() as (_, http):
        task_id = submit(http, upload(http, encoded()), "car")
        with http.stream("GET", f"/api/v1/tasks/{task_id}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: task"
            assert json.loads(next(lines).removeprefix("data: "))["status"] == "pending"
            http.post(f"/api/v1/tasks/{task_id}/cancel")
            rest = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert [event["status"] for event in rest] == ["error"]


def test_projects_can_be_created_renamed_listed_and_deleted(worker):
    with worker.user() as (_, http):
        project = http.post("/api/v1/projects", json={"name": "a"}).json()["data"]
        http.patch(f"/api/v1/projects/{project['id']}", json={"name": "b"})
        assert [one["name"] for one in http.get("/api/v1/projects").json()["data"]["projects"]] == ["b"]
        file = {"file": ("a.png", encoded(), "image/png")}
        assert http.post("/api/v1/upload", files=file, data={"project_id": project["id"]}).status_code == 200
        assert http.delete(f"/api/v1/projects/{project['id']}").status_code == 200


def test_a_deleted_image_is_gone_from_the_bucket(worker):
    with worker.user() as (_, http):
        image = http.post("/api/v1/upload", files={"file": encoded()}).json()["data"]
        assert http.delete(f"/api/v1/images/{image['image_id']}").status_code == 200
        assert code(httpx.get(image["image_url"])) == (404, "NOT_FOUND")


@pytest.mark.parametrize("kind", NOT_PICTURES)
def test_what_is_no_picture_is_refused(worker, kind):
    with worker.user(app_metadata={"tier": "enterprise"}) as (_, http):
        answer = http.post("/api/v1/upload", files={"file": ("a.png", NOT_PICTURES[kind], "image/png")})
        assert code(answer) == (400, "INVALID_REQUEST")


def test_a_picture_with_too_many_pixels_is_refused(worker):
    with worker.user() as (_, http):
        answer = http.post("/api/v1/upload", files={"file": ("a.png", bomb(100_000, 100_000), "image/png")})
        assert code(answer) == (400, "INVALID_REQUEST")
        assert "too large" in answer.json()["error"]["message"]


def test_the_tasks_of_another_user_do_not_exist(worker):
    with worker.user() as (_, ann), worker.user() as (_, bob):
        task_id = submit(ann, upload(ann, encoded()), "car")
        for path in (task_id, str(uuid.uuid4())):
            assert code(bob.get(f"/api/v1/tasks/{path}")) == (404, "NOT_FOUND")


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
class TestTokens:
    @pytest.fixture
    def user_id(self, worker):
        user_id = str(uuid.uuid4())
        worker.project.sign_up(user_id)
        return user_id

    def me(self, worker, token):
        return httpx.get(f"{worker.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def test_a_token_is_accepted(self, worker, algorithm, user_id):
        answer = self.me(worker, worker.project.issuer.signed(user_id, algorithm))
        assert (answer.status_code, answer.json()["data"]["user_id"]) == (200, user_id)

    def test_a_token_with_another_signature_is_refused(self, worker, algorithm, user_id):
        issuer = worker.project.issuer
        head, _, _ = issuer.signed(user_id, algorithm).rpartition(".")
        _, _, other = issuer.signed(str(uuid.uuid4()), algorithm).rpartition(".")
        for signature in (other, "", "AAAA", other[:-8]):
            assert code(self.me(worker, f"{head}.{signature}")) == (401, "AUTH_INVALID")

    def test_a_token_that_names_the_key_of_another_algorithm_is_refused(self, worker, algorithm, user_id):
        for other in {"ES256", "RS256", "EdDSA"} - {algorithm}:
            token = worker.project.issuer.signed(user_id, algorithm, key_of=other)
            assert code(self.me(worker, token)) == (401, "AUTH_INVALID")

    def test_claims_are_judged(self, worker, algorithm, user_id):
        issuer = worker.project.issuer
        now = int(time.time())
        for wrong in ({"exp": now - 60}, {"aud": "x"}, {"iss": "https://x.example"}, {"nbf": now + 600}, {"exp": None}):
            assert code(self.me(worker, issuer.signed(user_id, algorithm, **wrong))) == (401, "AUTH_INVALID"), wrong
        assert code(self.me(worker, issuer.signed(user_id, algorithm, is_anonymous=True))) == (403, "FORBIDDEN")


def test_without_a_token_the_answer_says_so(worker):
    answer = httpx.get(f"{worker.url}/api/v1/me")
    assert code(answer) == (401, "AUTH_REQUIRED")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_rates_are_limited_by_the_database_and_counted_once(worker):
    with worker.user() as (_, http):
        answers = [http.get("/api/v1/me") for _ in range(3)]
        remaining = [int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0]) for answer in answers]
        assert remaining == [remaining[0], remaining[0] - 1, remaining[0] - 2]


def test_the_page_in_the_browser_and_its_files_are_served(worker):
    page = httpx.get(worker.url)
    assert page.headers["content-type"].startswith("text/html")
    assert worker.public_base in page.text
    assert httpx.get(f"{worker.url}/playground/page.js").status_code == 200


def test_it_is_ready_and_no_key_of_the_project_is_in_its_log(worker):
    assert httpx.get(f"{worker.url}/ready", timeout=30).json()["data"]["ready"] is True
    with worker.user() as (_, http):
        assert http.get("/api/v1/me").status_code == 200
    httpx.get(f"{worker.url}/health")
    time.sleep(1)  # wrangler passes lines on a moment later
    _, _, log = (worker.folder / "project" / "worker.log").read_text().partition("Ready on")  # before: wrangler's own
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]
    assert {line["route"] for line in lines if line["message"] == "request"} >= {"/api/v1/me"}
    for secret in (PUBLISHABLE_KEY, GPU_KEY, "eyJ"):
        assert secret not in log

"""Edge and GPU service as processes on real servers: from an upload to the mask in the bucket."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import time
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from s3seg import Client, Segmenter
from s3seg.client.signin import sessions
from s3seg.tasks.object_keys import new_image_key
from tests.cloud.deployment import deploy, finished, submit, upload
from tests.cloud.parts import downloads
from tests.cloud.parts.gateway import PUBLISHABLE_KEY, SECRET_KEY
from tests.cloud.parts.seaweed import SECRET_KEY as S3_SECRET
from tests.commands.running import command

PICTURE = Path(__file__).parents[2] / "examples" / "pictures" / "street.png"


@pytest.fixture(scope="module")
def public_deployment(folder, database_server, s3):
    with deploy(folder, database_server, s3, public=True) as made:
        yield made


@pytest.fixture(scope="module")
def picture():
    return PICTURE.read_bytes()


@pytest.fixture(scope="module")
def expected():
    """The label maps of the same weights in this process."""
    results = Segmenter().segment(PICTURE, ["car", "house"])
    return {result.prompt: result.label_map() for result in results}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_signing_in_once_is_enough_for_as_long_as_the_session_lives(public_deployment, tmp_path, monkeypatch, expected):
    """The tokens that a stand-in for Supabase Auth gives and renews are judged by the edge and by PostgREST."""
    project, url = public_deployment.project, public_deployment.url
    user = project.auth.sign_up("ann@example.com", "correct horse")
    project.sign_up(user.user_id)
    monkeypatch.setattr(sessions, "_default_folder", lambda: tmp_path / "sign-ins")
    monkeypatch.setattr(sessions, "system_keyring", lambda: None)
    signed_in = command("login", url, "--email", user.email, input="correct horse\n")
    assert signed_in.stdout == f"signed in to {url} as ann@example.com (free, 10 credits)\n"
    for renewals in (0, 1):
        with Client.signed_in(url) as client:
            client._core.auth._signed_in._clock = lambda ahead=renewals: time.time() + 3600 * ahead
            found = client.segment(PICTURE, "car")
        assert (found.label_map() == expected["car"]).all()
        assert project.auth.grants.count("refresh_token") == renewals
    assert command("logout", url).exit_code == 0
    assert project.auth.sessions(user) == 0


def test_from_an_upload_to_the_mask_in_the_bucket(public_deployment, picture, expected):
    with public_deployment.user(credits=10) as (_, http):
        image_url = upload(http, picture)
        assert httpx.get(image_url).content == picture
        task = finished(http, submit(http, image_url, "car", "house"))
        assert task["status"] == "done", task
        result = http.get(f"/api/v1/results/{task['result_id']}").json()["data"]
        assert set(result["labels"]) == {prompt for prompt, mask in expected.items() if mask.any()} != set()
        for found in result["metadata"]["prompts"]:
            answer = httpx.get(found["mask_url"])
            assert answer.headers["content-type"] == "image/png"
            (prompt,) = found["labels"]
            np.testing.assert_array_equal(pixels(answer.content), expected[prompt])
        combined = pixels(httpx.get(result["mask_image_url"]).content)
        np.testing.assert_array_equal(combined > 0, (expected["car"] > 0) | (expected["house"] > 0))
        assert [row["id"] for row in http.get("/api/v1/results").json()["data"]["results"]] == [task["task_id"]]
        assert http.get("/api/v1/me").json()["data"]["credits"] == 8


def test_a_failed_task_is_refunded(public_deployment, picture):
    with public_deployment.user() as (_, http):
        image_url = upload(http, picture)
        task = finished(http, submit(http, image_url, "word " * 90))
        assert task["status"] == "error"
        assert "tokens" in task["error_message"]
        assert http.get("/api/v1/me").json()["data"]["credits"] == 10


def call_database(deployment, http, function, **arguments):
    """Call an SQL function without the edge, with the token of the user."""
    headers = {"apikey": PUBLISHABLE_KEY, "Authorization": http.headers["authorization"]}
    answer = httpx.post(f"{deployment.project.gateway.url}/rest/v1/rpc/{function}", json=arguments, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def register_directly(deployment, http, key, **changes):
    arguments = {"p_object_key": key, "p_content_type": "image/png", "p_size_bytes": 1, "p_width": 1, "p_height": 1}
    return call_database(deployment, http, "register_image", **{**arguments, **changes})["image_url"]


def attempts_of(deployment, task_id):
    """Read from the log how each attempt at a task ended; log lines may be written a moment later."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        said = [
            json.loads(line) for line in (deployment.folder / "gpu.log").read_text().splitlines() if line[:1] == "{"
        ]
        ends = [line["ended"] for line in said if line["message"] == "prediction" and line["task_id"] == task_id]
        if ends:
            return ends
        time.sleep(0.05)
    raise AssertionError("no attempt was logged")


def test_a_task_for_an_image_that_was_never_uploaded_is_refunded_without_retries(public_deployment, picture):
    with public_deployment.user() as (user_id, http):
        missing = register_directly(public_deployment, http, new_image_key(user_id, "image/png"))
        body = {"p_image_url": missing, "p_text_prompts": ["car", "house"]}
        tasks = [call_database(public_deployment, http, "submit_segmentation", **body)["task"]["id"] for _ in range(2)]
        tasks.append(submit(http, missing, "car"))  # the edge does not know that there is no such object
        real = submit(http, upload(http, picture), "car")
        for task_id in tasks:
            task = finished(http, task_id)
            assert task["status"] == "error"
            assert "upload it again" in task["error_message"]
        assert finished(http, real)["status"] == "done"
        assert http.get("/api/v1/me").json()["data"]["credits"] == 9
        assert httpx.get(missing).status_code == 404
        rows = public_deployment.project.database.execute(
            "select 1 from private.leases where task_id::text = any(%s)", (tasks,)
        )
        assert rows == []
    for task_id in tasks:
        assert attempts_of(public_deployment, task_id) == ["NOT_FOUND"]  # a single attempt


def test_a_row_with_a_wrong_image_size_changes_nothing(public_deployment, picture, expected):
    with public_deployment.user() as (_, http):
        uploaded = http.post("/api/v1/upload", files={"file": ("street.png", picture, "image/png")}).json()["data"]
        # delete the row, but keep the object
        call_database(public_deployment, http, "delete_image", p_image_id=uploaded["image_id"])
        key = uploaded["image_url"].removeprefix(f"{public_deployment.public_base}/")
        again = register_directly(public_deployment, http, key, p_width=178_000_000, p_size_bytes=10 * 1024 * 1024)
        assert again == uploaded["image_url"]
        task = finished(http, submit(http, again, "car"))
        result = http.get(f"/api/v1/results/{task['result_id']}").json()["data"]
        np.testing.assert_array_equal(pixels(httpx.get(result["mask_image_url"]).content), expected["car"])


def test_data_of_another_user_and_absent_data_give_the_same_response(public_deployment, picture):
    def shape(answer):
        body = re.sub(rb'"(request_id|timestamp)":"[^"]*"', b"", answer.content)
        return answer.status_code, body.replace(answer.headers["x-request-id"].encode(), b"")

    with public_deployment.user() as (_, one), public_deployment.user() as (_, other):
        task = submit(one, upload(one, picture), "car")
        for path in ("/api/v1/tasks/", "/api/v1/results/"):
            foreign, absent = other.get(path + task), other.get(path + str(uuid.uuid4()))
            assert foreign.status_code == 404
            assert shape(foreign) == shape(absent)
        finished(one, task)


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"aud": "else"}, 401, "AUTH_INVALID"),
        ({"exp": 1}, 401, "AUTH_INVALID"),
        ({"iss": "https://else.example/auth/v1"}, 401, "AUTH_INVALID"),
        ({"is_anonymous": True}, 403, "FORBIDDEN"),
        ({"role": "service_role"}, 403, "FORBIDDEN"),
    ],
)
def test_a_token_of_the_wrong_kind_is_refused(public_deployment, claims, status, code):
    with public_deployment.user(**claims) as (_, http):
        answer = http.get("/api/v1/results")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_edge_has_no_secret_key_and_logs_no_secret(public_deployment, picture):
    with public_deployment.user() as (_, http):
        finished(http, submit(http, upload(http, picture), "car"))
        token = http.headers["authorization"].removeprefix("Bearer ")
    logs = "".join((public_deployment.folder / f"{name}.log").read_text() for name in ("edge", "gpu"))
    assert "request_id" in logs
    for secret in (token, S3_SECRET, SECRET_KEY, PUBLISHABLE_KEY, "the key between"):
        assert secret not in logs
    keys = {path: headers["apikey"] for _, path, headers in public_deployment.project.gateway.seen}
    assert keys["/rest/v1/rpc/submit_segmentation"] == PUBLISHABLE_KEY
    assert keys["/rest/v1/rpc/worker_finish"] == SECRET_KEY


def test_a_stopped_database_is_a_503_without_details_and_without_charge(public_deployment, picture):
    with public_deployment.user() as (_, http):
        image_url = upload(http, picture)
        body = {"image_url": image_url, "text_prompt": "car"}
        public_deployment.project.postgrest.server.stop()
        try:
            answers = [
                http.post("/api/v1/segment", json=body, headers={"Idempotency-Key": "k"}),
                http.get("/api/v1/results"),
                http.get(f"/api/v1/tasks/{uuid.uuid4()}"),
                http.post("/api/v1/upload", files={"file": ("street.png", picture, "image/png")}),
            ]
        finally:
            public_deployment.project.postgrest.server.start()
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
            for leak in ("postgrest", "127.0.0.1", "supabase", "traceback", "name resolution"):
                assert leak not in answer.text.lower()
        assert http.get("/api/v1/me").json()["data"]["credits"] == 10
        accepted = http.post("/api/v1/segment", json=body, headers={"Idempotency-Key": "k"})
        assert finished(http, accepted.json()["data"]["task_id"])["status"] == "done"


def test_a_prompt_cannot_forge_log_lines(public_deployment, picture):
    with public_deployment.user() as (_, http):
        image_url = upload(http, picture)
        for prompt in ('car\n{"forged": 1}', "car\r\nforged", "car\u2028forged", "\u202eforged"):
            answer = http.post("/api/v1/segment", json={"image_url": image_url, "text_prompt": prompt})
            assert answer.status_code == 202  # its line breaks have become spaces
        http.get("/api/v1/tasks/x%0Aforged")
    lines = (public_deployment.folder / "edge.log").read_text().splitlines()
    assert len(lines) > 5
    assert not any(line.startswith(("forged", '{"forged"')) for line in lines)


def test_a_private_bucket_is_read_through_the_edge(folder, database_server, s3, picture, expected):
    with deploy(folder, database_server, s3, public=False) as private, private.user() as (_, http):
        image_url = upload(http, picture)
        redirect = httpx.get(image_url)
        assert redirect.status_code in (302, 303, 307)
        assert httpx.get(redirect.headers["location"]).content == picture
        assert httpx.get(redirect.headers["location"].partition("?")[0]).status_code == 403
        task = finished(http, submit(http, image_url, "car"))
        result = http.get(f"/api/v1/results/{task['result_id']}").json()["data"]
        mask = httpx.get(result["mask_image_url"], follow_redirects=True).content
        np.testing.assert_array_equal(pixels(mask), expected["car"])


# --- supabase-js; clients in Flutter use an equivalent library

SCRIPT = """
const { createClient } = require('@supabase/supabase-js')
const [url, key, token, other] = process.argv.slice(2)
const client = createClient(url, key, { accessToken: async () => token })
const said = async (query) => { const { data, error, status } = await query; return { data, status, error: !!error } }
;(async () => {
  const results = 'segmentation_results'
  console.log(JSON.stringify({
    own: await said(client.from(results).select('id, status, text_prompt').order('created_at')),
    others: await said(client.from(results).select('id').eq('user_id', other)),
    account: await said(client.rpc('my_account')),
    insert: await said(client.from(results).insert({ user_id: other, status: 'done' })),
    update: await said(client.from(results).update({ status: 'done' }).neq('status', 'done')),
    remove: await said(client.from(results).delete().neq('status', 'error')),
    credits: await said(client.from('profiles').update({ credits: 1000 }).neq('credits', 1000)),
    claim: await said(client.rpc('worker_claim_batch', { p_worker: 'w', p_limit: 1, p_lease_s: 30 })),
    grant: await said(client.rpc('operator_adjust', { p_user_id: other, p_delta: 1000 })),
  }))
  process.exit(0)
})()
"""


def test_supabase_js_reads_its_own_results_and_nothing_else(public_deployment, picture, tmp_path):
    modules = downloads.npm_package(downloads.SUPABASE_JS)
    with public_deployment.user() as (other_id, other), public_deployment.user() as (_, http):
        finished(other, submit(other, upload(other, picture), "car"))
        task = submit(http, upload(http, picture), "car")
        finished(http, task)
        token = http.headers["authorization"].removeprefix("Bearer ")
        script = tmp_path / "client.js"
        script.write_text(SCRIPT)
        done = subprocess.run(
            [downloads.node(), script, public_deployment.project.gateway.url, PUBLISHABLE_KEY, token, other_id],
            env={**os.environ, "NODE_PATH": str(modules)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["own"]["data"] == [{"id": task, "status": "done", "text_prompt": "car"}]
        assert (said["others"]["data"], said["others"]["error"]) == ([], False)
        assert said["account"]["data"]["credits"] == 9
        for refused in ("insert", "update", "remove", "credits", "claim", "grant"):
            assert (said[refused]["status"], said[refused]["error"]) == (403, True), refused
        assert http.get("/api/v1/me").json()["data"]["credits"] == 9

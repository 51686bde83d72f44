"""What holds for every route, and the routes that the original contract does not have."""

import asyncio
import contextlib
import io
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
import uuid

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from s3seg.api.additions import (
    DeletedResponse,
    EdgeHealthResponse,
    MeResponse,
    ProjectResponse,
    ProjectsListResponse,
    ReadyResponse,
)
from s3seg.app import Parts, edge_app, local_keys
from s3seg.app.settings import Settings
from s3seg.edge import watching
from s3seg.errors import UnavailableError
from s3seg.tasks.object_keys import new_image_key
from s3seg.web.logs import JsonFormatter
from tests.helpers.attacks import slow_jpeg
from tests.helpers.running_edge import running
from tests.web.contract_bodies import data_of, error_of, require_valid_openapi
from tests.web.secured_routes import ID

pytestmark = pytest.mark.anyio


class TestEnvelope:
    @pytest.mark.parametrize(
        "path",
        [
            "http://edge.example//",
            "/%00",
            "/%ff",
            "/..%2f",
            "/api/v1",
            "/api/v1/",
            "/api/v2/tasks/1",
            "/api/v1/tasks/",
            "/api/v1/results/",
            "/api/v1/upload/",
            "/health/",
        ],
    )
    async def test_unknown_paths_are_404(self, service, path):
        assert error_of(await service.http.get(path)) == (404, "NOT_FOUND")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/v1/upload"),
            ("DELETE", "/api/v1/segment"),
            ("PUT", f"/api/v1/tasks/{ID}"),
            ("POST", "/api/v1/results"),
            ("OPTIONS", "/api/v1/results"),
            ("POST", "/health"),
            ("TRACE", "/api/v1/me"),
            ("BREW", "/api/v1/me"),
        ],
    )
    async def test_other_methods_are_405_and_name_those_there_are(self, service, method, path):
        response = await service.http.request(method, path)
        assert response.status_code in (404, 405)
        assert error_of(response) == (405, "METHOD_NOT_ALLOWED")
        assert method not in response.headers["allow"]

    async def test_a_crash_is_500_without_details(self, service, ann, monkeypatch):
        async def crash(*args, **kwargs):
            raise RuntimeError("secret of /home/someone with password hunter2")

        monkeypatch.setattr(service.parts.task_store, "list_tasks", crash)
        response = await ann("GET", "/api/v1/results")
        assert error_of(response) == (500, "INTERNAL_ERROR")
        assert "hunter2" not in response.text
        assert "Traceback" not in response.text

    async def test_a_part_that_does_not_answer_is_503_and_passes(self, service, ann, monkeypatch):
        url = await ann.image_url()
        body = {"image_url": url, "text_prompt": "cat"}

        async def fail(*args, **kwargs):
            raise UnavailableError("the disk is full", retry_after=7)

        with monkeypatch.context() as patch:
            for part, methods in [(service.parts.objects, ["put"]), (service.parts.task_store, ["submit", "get_task"])]:
                for method in methods:
                    patch.setattr(part, method, fail)
            for response in (
                await ann.upload(),
                await ann("POST", "/api/v1/segment", json=body),
                await ann("GET", f"/api/v1/tasks/{ID}"),
            ):
                assert error_of(response) == (503, "UNAVAILABLE")
                assert response.headers["retry-after"] == "7"
        assert (await ann.upload()).status_code == 200
        assert (await ann("POST", "/api/v1/segment", json=body)).status_code == 202

    async def test_a_prompt_forges_no_log_line(self, service, ann):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter())
        logger = logging.getLogger("s3seg")
        logger.addHandler(handler)
        logger.setLevel("DEBUG")
        try:
            await ann.segment(text_prompt='{"level":"error"} %s %(x)s {0}')
            await ann("GET", "/nowhere%0A%7B%22level%22%3A%22error%22%7D")
        finally:
            logger.removeHandler(handler)
            logger.setLevel("NOTSET")
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert lines
        assert all(line["level"] == "info" for line in lines)
        assert all("request_id" in line for line in lines)
        assert ann.token not in stream.getvalue()


class TestFiles:
    @pytest.mark.parametrize(
        "path",
        [
            "../auth/signing-key.pem",
            "..%2fauth%2fsigning-key.pem",
            "%2e%2e/auth/signing-key.pem",
            "users/../../auth/signing-key.pem",
            ".partial/x.png",
            "users",
            "users/",
            "",
            "users/u/images/" + "0" * 32 + ".png",
            "C:/x.png",
            "x.png%00",
            "%ff.png",
            "a" * 5000 + ".png",
            "a" * 252 + ".png",
            "users/" + "u" * 256 + "/x.png",
        ],
    )
    async def test_a_missing_object_is_404(self, service, ann, path):
        local_keys(service.settings).mint("ann")  # so that there is a key to steal
        await ann.upload()  # and folders to look into
        assert error_of(await service.http.get(f"/files/{path}")) == (404, "NOT_FOUND")

    async def test_head_tells_the_same_without_the_body(self, service, ann):
        path = (await ann.image_url()).removeprefix("http://127.0.0.1:8000")
        head, get = await service.http.head(path), await service.http.get(path)
        assert head.content == b""
        for name in ("content-type", "content-length", "x-content-type-options", "cache-control"):
            assert head.headers[name] == get.headers[name]

    async def test_caches_ask_again_after_a_minute_and_get_no_deleted_object(self, service, ann):
        image = (await ann.upload()).json()["data"]
        path = image["image_url"].removeprefix("http://127.0.0.1:8000")
        first = await service.http.get(path)
        assert first.headers["cache-control"] == "private, max-age=60, must-revalidate"
        again = await service.http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == first.headers["cache-control"]
        assert (await service.http.get(path, headers={"If-None-Match": '"another"'})).status_code == 200
        data_of(await ann("DELETE", f"/api/v1/images/{image['image_id']}"), DeletedResponse)
        gone = await service.http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert error_of(gone) == (404, "NOT_FOUND")

    async def test_a_deleted_image_is_gone(self, service, ann):
        image = (await ann.upload()).json()["data"]
        data_of(await ann("DELETE", f"/api/v1/images/{image['image_id']}"), DeletedResponse)
        gone = await service.http.get(image["image_url"].removeprefix("http://127.0.0.1:8000"))
        assert error_of(gone) == (404, "NOT_FOUND")

    async def test_a_private_bucket_is_redirected_to(self, service, monkeypatch):
        async def presign(key, *, expires_s):
            return f"https://bucket.example/{key}?signature=1"

        monkeypatch.setattr(service.parts.objects, "presign", presign)
        key = new_image_key(str(uuid.uuid4()), "image/png")
        response = await service.http.get(f"/files/{key}")
        assert (response.status_code, response.headers["cache-control"]) == (302, "no-store")
        assert response.headers["location"] == f"https://bucket.example/{key}?signature=1"


class TestAdditions:
    async def test_me_tells_tier_credits_and_limits(self, tmp_path):
        async with running(tmp_path, rate_limits="contract") as service:
            me = data_of(await (await service.user(credits=7))("GET", "/api/v1/me"), MeResponse)
            assert (me["tier"], me["credits"]) == ("free", 7)
            assert me["limits"] == {"upload": 10, "segment": 5, "results": 60, "tasks": 60}

    async def test_projects_are_made_renamed_listed_and_deleted(self, ann):
        made = [await ann("POST", "/api/v1/projects", json={"name": name}) for name in ("first", "second")]
        ids = [data_of(one, ProjectResponse, 201)["id"] for one in made]
        assert made[0].headers["location"] == f"/api/v1/projects/{ids[0]}"
        renamed = data_of(await ann("PATCH", f"/api/v1/projects/{ids[0]}", json={"name": "고양이"}), ProjectResponse)
        assert renamed == data_of(await ann("GET", f"/api/v1/projects/{ids[0]}"), ProjectResponse)
        page = data_of(await ann("GET", "/api/v1/projects"), ProjectsListResponse)
        assert [(one["id"], one["name"]) for one in page["projects"]] == [(ids[1], "second"), (ids[0], "고양이")]
        page = data_of(await ann("GET", "/api/v1/projects?page=2&limit=1"), ProjectsListResponse)
        assert ([one["id"] for one in page["projects"]], page["total"]) == ([ids[0]], 2)
        data_of(await ann("DELETE", f"/api/v1/projects/{ids[0]}"), DeletedResponse)
        assert error_of(await ann("GET", f"/api/v1/projects/{ids[0]}")) == (404, "NOT_FOUND")

    async def test_what_is_in_a_deleted_project_stays(self, ann):
        project = (await ann("POST", "/api/v1/projects", json={"name": "p"})).json()["data"]["id"]
        task_id = (await ann.segment(project_id=project)).json()["data"]["task_id"]
        etag = (await ann("GET", f"/api/v1/results/{task_id}")).headers["etag"]
        await ann("DELETE", f"/api/v1/projects/{project}")
        result = await ann("GET", f"/api/v1/results/{task_id}", headers={"If-None-Match": etag})
        assert result.json()["data"]["project_id"] is None

    @pytest.mark.parametrize("name", ["", " ", "x" * 121, "a\nb", "\0", "\ud800", 5, None])
    async def test_an_invalid_name_is_400(self, ann, name):
        response = await ann(
            "POST",
            "/api/v1/projects",
            content=json.dumps({"name": name}),
            headers={"Content-Type": "application/json"},
        )
        assert error_of(response) == (400, "INVALID_REQUEST")

    async def test_deleting_a_live_result_cancels_and_refunds_it(self, ann):
        task_id = await ann.task_id()
        assert await ann.credits() == 9
        data_of(await ann("DELETE", f"/api/v1/results/{task_id}"), DeletedResponse)
        assert await ann.credits() == 10
        assert error_of(await ann("GET", f"/api/v1/tasks/{task_id}")) == (404, "NOT_FOUND")

    @pytest.fixture
    def read(self, service, monkeypatch):
        """Set when the service has read a task."""
        read, changes = asyncio.Event(), watching.changes

        async def told(load, **options):
            async with contextlib.aclosing(changes(load, **options)) as states:
                async for task in states:
                    yield task
                    read.set()

        monkeypatch.setattr(watching, "changes", told)
        return read

    async def test_events_tell_a_task_until_its_end(self, service, ann, read):
        task_id = await ann.task_id()

        async def work():
            await read.wait()
            await service.finish(task_id)

        working = asyncio.create_task(work())
        response = await ann("GET", f"/api/v1/tasks/{task_id}/events")
        await working
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [event.split("\n") for event in response.text.strip().split("\n\n")]
        assert {event[0] for event in events} == {"event: task"}
        states = [json.loads(event[1].removeprefix("data: ")) for event in events]
        assert states[0]["status"] == "pending"
        assert (states[-1]["status"], states[-1]["result_id"]) == ("done", task_id)

    async def test_head_of_events_does_not_wait_for_the_task(self, ann):
        async with asyncio.timeout(20):
            response = await ann("HEAD", f"/api/v1/tasks/{await ann.task_id()}/events")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")

    async def test_events_of_a_task_that_vanishes_end_in_an_error(self, ann, read):
        task_id = await ann.task_id()

        async def vanish():
            await read.wait()
            await ann("DELETE", f"/api/v1/results/{task_id}")

        vanishing = asyncio.create_task(vanish())
        response = await ann("GET", f"/api/v1/tasks/{task_id}/events")
        await vanishing
        last = response.text.strip().split("\n\n")[-1].split("\n")
        assert last[0] == "event: error"
        assert json.loads(last[1].removeprefix("data: "))["code"] == "NOT_FOUND"


class TestOperation:
    async def test_health_and_readiness(self, service, monkeypatch):
        data_of(await service.http.get("/health"), EdgeHealthResponse)
        ready = data_of(await service.http.get("/ready"), ReadyResponse)
        assert ready["ready"] is True
        assert set(ready["parts"].values()) == {"ok"}

        async def broken():
            raise UnavailableError("no space left on device")

        monkeypatch.setattr(service.parts.objects, "check", broken)
        assert (await service.http.get("/ready")).status_code == 200  # good for a second
        now = time.monotonic()
        monkeypatch.setattr("s3seg.edge.service.time.monotonic", lambda: now + 2)
        not_ready = await service.http.get("/ready")
        assert error_of(not_ready) == (503, "UNAVAILABLE")
        assert "objects: no space left" in not_ready.json()["error"]["message"]
        data_of(await service.http.get("/health"), EdgeHealthResponse)

    async def test_a_deleted_folder_of_objects_is_told_and_takes_no_uploads(self, service, ann, monkeypatch):
        image_url = await ann.image_url()
        shutil.rmtree(service.settings.data_dir / "objects")
        assert error_of(await ann.upload()) == (503, "UNAVAILABLE")
        key = image_url.partition("/files/")[2]
        assert error_of(await service.http.get(f"/files/{key}")) == (503, "UNAVAILABLE")
        not_ready = await service.http.get("/ready")
        assert error_of(not_ready) == (503, "UNAVAILABLE")
        assert "objects: the folder of the object store was deleted" in not_ready.json()["error"]["message"]
        assert not (service.settings.data_dir / "objects").exists()

    async def test_a_deleted_signing_key_is_told(self, service, ann):
        await ann.credits()
        (service.settings.data_dir / "auth" / "signing-key.pem").unlink()
        not_ready = await service.http.get("/ready")
        assert error_of(not_ready) == (503, "UNAVAILABLE")
        assert "authenticator: the signing key was deleted" in not_ready.json()["error"]["message"]
        assert await ann.credits() == 10  # tokens are good as long as the service runs
        assert not (service.settings.data_dir / "auth" / "signing-key.pem").exists()

    async def test_metrics_count_routes_not_paths(self, service, ann):
        await ann("GET", f"/api/v1/tasks/{ID}")
        await ann("GET", "/nowhere/secret")
        text = (await service.http.get("/metrics")).text
        assert 'route="/api/v1/tasks/{task_id}",status="404"' in text
        assert 's3seg_http_errors_total{code="NOT_FOUND",route="/api/v1/tasks/{task_id}"} 1.0' in text
        assert ID not in text
        assert "secret" not in text

    async def test_how_to_sign_in_is_told_to_everybody(self, service):
        answer = await service.http.get("/api/v1/auth")
        assert answer.status_code == 200
        assert answer.json()["data"] == {"kind": "token", "realtime": False}

    @pytest.mark.parametrize("realtime", [True, False])
    async def test_with_supabase_the_project_is_told_and_no_secret(self, tmp_path, realtime):
        secrets = {"supabase_secret_key": "sb_secret_hidden", "supabase_jwt_secret": "hidden-" * 8}
        chosen = {
            **secrets,
            "authenticator": "supabase",
            "task_store": "supabase",
            "supabase_url": "https://ref.supabase.co",
            "supabase_publishable_key": "sb_publishable_shown",
            "supabase_realtime": realtime,
        }
        async with running(tmp_path, **chosen) as service:
            answer = await service.http.get("/api/v1/auth")
        assert answer.json()["data"] == {
            "kind": "supabase",
            "supabase_url": "https://ref.supabase.co",
            "supabase_key": "sb_publishable_shown",
            "realtime": realtime,
        }
        assert "hidden" not in answer.text

    async def test_the_openapi_document_is_valid_and_lists_every_error(self, service):
        document = (await service.http.get("/openapi.json")).json()
        require_valid_openapi(document)
        segment = document["paths"]["/api/v1/segment"]["post"]
        assert {"200", "202", "400", "401", "402", "403", "429", "500", "503"} == set(segment["responses"])
        assert {"200", "400", "401", "403", "413", "429", "500", "503"} == set(
            document["paths"]["/api/v1/upload"]["post"]["responses"]
        )

    async def test_without_origins_no_page_may_call(self, service):
        response = await service.http.get("/health", headers={"Origin": "https://page.example"})
        assert "access-control-allow-origin" not in response.headers

    async def test_pages_of_listed_origins_may_call_and_read_what_they_need(self, tmp_path):
        async with running(tmp_path, cors_origins=("https://page.example",)) as service:
            origin = {"Origin": "https://page.example"}
            ask_method = "Access-Control-Request-Method"
            ask = {ask_method: "POST", "Access-Control-Request-Headers": "authorization"}
            preflight = await service.http.options("/api/v1/segment", headers=origin | ask)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == "https://page.example"
            body = preflight.json()
            assert (body["success"], body["data"], body["error"]) == (True, {}, None)
            assert preflight.headers["x-request-id"] == body["meta"]["request_id"]
            for headers in (ask | {"Origin": "https://evil.example"}, origin | ask | {ask_method: "BREW"}):
                preflight = await service.http.options("/api/v1/segment", headers=headers)
                assert error_of(preflight) == (400, "INVALID_REQUEST")
                assert "Disallowed CORS" in preflight.json()["error"]["message"]
            refused = await service.http.get("/api/v1/me", headers=origin)
            assert error_of(refused) == (401, "AUTH_REQUIRED")
            assert refused.headers["access-control-allow-origin"] == "https://page.example"
            assert "Retry-After" in refused.headers["access-control-expose-headers"]
            other = await service.http.get("/api/v1/me", headers={"Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers

    async def test_it_can_be_mounted_in_another_application(self, service, ann):
        outer = Starlette(routes=[Mount("/seg", app=service.app)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://outer") as http:
            headers = {"Authorization": f"Bearer {ann.token}"}
            body = {"image_url": await ann.image_url(), "text_prompt": "cat"}
            response = await http.post("/seg/api/v1/segment", json=body, headers=headers)
            assert response.status_code == 202
            location = response.headers["location"]
            assert location.startswith("/seg/api/v1/tasks/")
            assert (await http.get(location, headers=headers)).status_code == 200
            assert error_of(await http.get("/seg/nowhere")) == (404, "NOT_FOUND")

    async def test_its_lifespan_closes_what_it_made(self, service):
        others = set(threading.enumerate())  # of services that other tests of this process have left open
        app = edge_app(service.settings)
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge")
        async with app.router.lifespan_context(app), http:
            assert (await http.get("/ready")).status_code == 200
            assert [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("s3seg-sqlite")]
        left = set(threading.enumerate()) - others
        assert not [thread for thread in left if thread.name.startswith("s3seg-sqlite")]

    def test_an_edge_process_never_loads_torch(self, tmp_path):
        code = (
            "import sys; from s3seg.app import edge_app; from s3seg.app.settings import Settings; "
            f"edge_app(Settings(_env_file=None, data_dir={str(tmp_path)!r})); "
            "heavy = {'torch', 'transformers', 'tokenizers', 'safetensors', 'boto3', 'pandas', 'cv2'}; "
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestDecoding:
    async def test_a_slow_picture_is_a_bad_request_and_a_good_one_is_stored(self, tmp_path):
        async with running(tmp_path, decode_processes=1, decode_deadline_s=0.5) as service:
            lifespan = service.app.router.lifespan_context(service.app)
            async with lifespan:
                ann = await service.user()
                response = await ann.upload(slow_jpeg())
                assert error_of(response) == (400, "INVALID_REQUEST")
                assert "takes too long to decode" in response.json()["error"]["message"]
                assert (await ann.upload()).status_code == 200

    async def test_without_a_free_process_the_answer_is_503_with_a_time_to_try_again(self, tmp_path, monkeypatch):
        async def full(*_, **__):
            raise UnavailableError("too many pictures are being decoded; try again", retry_after=2)

        monkeypatch.setattr("s3seg.decoding.DecodingPool.run", full)
        async with running(tmp_path, decode_processes=1) as service:
            response = await (await service.user()).upload()
            assert error_of(response) == (503, "UNAVAILABLE")
            assert int(response.headers["retry-after"]) >= 1


def test_http_inference_refuses_to_start_without_a_key(tmp_path):
    from s3seg.errors import ConfigurationError

    settings = Settings(_env_file=None, data_dir=tmp_path, inference="http")
    with pytest.raises(ConfigurationError, match="API_SECRET_KEY"):
        _ = Parts(settings).notifier

"""The endpoints of the contract but uploads, as a client of it sees them."""

import asyncio
import json
import re
import uuid

import pytest

from s3seg.api.edge import (
    ResultDetailResponse,
    ResultsListResponse,
    SegmentResponse,
    TaskResponse,
)
from s3seg.edge import Edge
from s3seg.tasks.limits import RATE_LIMITS, Action, Tier
from tests.helpers.attacks import BAD_PROMPTS, GOOD_PROMPTS
from tests.helpers.running_edge import running
from tests.web.contract_bodies import but_for_ids, data_of, error_of

pytestmark = pytest.mark.anyio


class TestSegment:
    async def test_a_task_is_accepted_and_paid(self, ann):
        response = await ann.segment()
        task = data_of(response, SegmentResponse, 202)
        assert set(task) == {"task_id", "status"}
        assert task["status"] == "pending"
        assert response.headers["location"] == f"/api/v1/tasks/{task['task_id']}"
        assert int(response.headers["retry-after"]) >= 1
        assert await ann.credits() == 9

    async def test_several_prompts_cost_a_credit_each(self, ann):
        url = await ann.image_url()
        body = {"image_url": url, "text_prompts": ["cat", "a red dog"]}
        task = data_of(await ann("POST", "/api/v1/segment", json=body), SegmentResponse, 202)
        assert await ann.credits() == 8
        result = data_of(await ann("GET", f"/api/v1/results/{task['task_id']}"), ResultDetailResponse)
        assert result["text_prompt"] == "cat, a red dog"

    @pytest.mark.parametrize(
        "prompt",
        [*BAD_PROMPTS, "\t", 5, None, []],
        ids=repr,
    )
    async def test_an_invalid_prompt_is_400_and_free(self, ann, prompt):
        body = json.dumps({"image_url": await ann.image_url(), "text_prompt": prompt})
        headers = {"Content-Type": "application/json"}
        response = await ann("POST", "/api/v1/segment", content=body, headers=headers)
        assert error_of(response) == (400, "INVALID_REQUEST")
        assert "text_prompt" in response.json()["error"]["message"]
        body = json.dumps({"image_url": await ann.image_url(), "text_prompts": ["cat", prompt]})
        response = await ann("POST", "/api/v1/segment", content=body, headers=headers)
        assert error_of(response) == (400, "INVALID_REQUEST")
        assert await ann.credits() == 10

    @pytest.mark.parametrize("prompt", GOOD_PROMPTS)
    async def test_a_valid_prompt_comes_back_unchanged(self, ann, prompt):
        task_id = (await ann.segment(text_prompt=prompt)).json()["data"]["task_id"]
        result = data_of(await ann("GET", f"/api/v1/results/{task_id}"), ResultDetailResponse)
        assert result["text_prompt"] == prompt

    async def test_the_field_that_is_wrong_is_named(self, ann):
        for body, field in [
            ({"text_prompt": "cat"}, "image_url"),
            ({"image_url": 5, "text_prompt": "cat"}, "image_url"),
            ({"image_url": "x", "text_prompt": "cat", "project_id": "7"}, "project_id"),
            ({"image_url": "x"}, "text_prompt"),
            ({"image_url": "x", "text_prompt": "a", "text_prompts": ["b"]}, "text_prompt"),
            ({"image_url": "x", "text_prompts": []}, "text_prompts"),
            ({"image_url": "x", "text_prompts": ["a"] * 17}, "text_prompts"),
        ]:
            response = await ann("POST", "/api/v1/segment", json=body)
            assert error_of(response) == (400, "INVALID_REQUEST")
            assert field in response.json()["error"]["message"]

    @pytest.mark.parametrize(
        "url",
        [
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost:8000/files/../../etc/passwd.png",
            "http://127.0.0.1:8000/files/users/x/images/%2e%2e/i.png",
            "file:///etc/passwd",
            "http://127.0.0.1:8000@evil.example/files/users/u/images/i.png",
            "http://127.0.0.1:8000/files.evil.example/i.png",
            "http://[::ffff:127.0.0.1]:8000/files/i.png",
            "gopher://127.0.0.1:6379/_x",
            "//evil.example/i.png",
            "",
            "\ud800",
            "x\0",
            "http://x/" + "a" * 3000,
        ],
        ids=repr,
    )
    async def test_an_address_that_no_upload_gave_is_400(self, ann, url):
        body = json.dumps({"image_url": url, "text_prompt": "cat"})
        response = await ann("POST", "/api/v1/segment", content=body, headers={"Content-Type": "application/json"})
        assert error_of(response) == (400, "INVALID_REQUEST")

    async def test_variants_of_a_real_address_are_400(self, ann):
        url = await ann.image_url()
        for variant in (url + "?x=1", url + "#x", url + "/", url.upper(), url.replace("http:", "https:"), " " + url):
            response = await ann("POST", "/api/v1/segment", json={"image_url": variant, "text_prompt": "cat"})
            assert error_of(response) == (400, "INVALID_REQUEST"), variant

    async def test_another_users_image_and_a_missing_one_give_the_same_error(self, ann, bob):
        real = await bob.image_url()
        guessed = real[:-36] + uuid.uuid4().hex + ".png"
        answers = [
            await ann("POST", "/api/v1/segment", json={"image_url": url, "text_prompt": "cat"})
            for url in (real, guessed)
        ]
        assert error_of(answers[0]) == (400, "INVALID_REQUEST")
        assert but_for_ids(answers[0]) == but_for_ids(answers[1])

    @pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"cat"', b"\xff", b"[" * 5000, b'{"a":' * 5000])
    async def test_a_body_that_is_not_a_json_object_is_400(self, ann, body):
        response = await ann("POST", "/api/v1/segment", content=body, headers={"Content-Type": "application/json"})
        assert error_of(response) == (400, "INVALID_REQUEST")

    async def test_a_body_without_end_is_refused_early(self, ann):
        async def endless():
            while True:
                yield b" " * 65_536

        async with asyncio.timeout(10):
            response = await ann(
                "POST", "/api/v1/segment", content=endless(), headers={"Content-Type": "application/json"}
            )
        assert error_of(response)[0] == 400

    async def test_without_credits_it_is_402_and_nothing_happens(self, service):
        poor = await service.user("poor", credits=1)
        assert error_of(await poor.segment(text_prompts=["a", "b"], text_prompt=None)) == (402, "INSUFFICIENT_CREDITS")
        assert await poor.credits() == 1
        assert (await poor("GET", "/api/v1/results")).json()["data"]["total"] == 0

    async def test_a_repeat_with_the_same_key_is_the_same_task(self, ann):
        url = await ann.image_url()
        headers = {"Idempotency-Key": "once"}
        body = {"image_url": url, "text_prompt": "cat"}
        answers = [await ann("POST", "/api/v1/segment", json=body, headers=headers) for _ in range(3)]
        assert len({data_of(one, SegmentResponse, 202)["task_id"] for one in answers}) == 1
        assert await ann.credits() == 9
        other = await ann("POST", "/api/v1/segment", json=body | {"text_prompt": "dog"}, headers=headers)
        assert error_of(other) == (400, "INVALID_REQUEST")

    async def test_the_same_key_of_two_users_is_two_tasks(self, ann, bob):
        ids = [
            (await user.segment(headers={"Idempotency-Key": "same"})).json()["data"]["task_id"] for user in (ann, bob)
        ]
        assert ids[0] != ids[1]

    @pytest.mark.parametrize("key", ["", "x" * 201, "ümlaut".encode("latin-1")])
    async def test_an_invalid_idempotency_key_is_400(self, ann, key):
        body = {"image_url": await ann.image_url(), "text_prompt": "cat"}
        response = await ann("POST", "/api/v1/segment", json=body, headers={"Idempotency-Key": key})
        assert error_of(response) == (400, "INVALID_REQUEST")

    async def test_a_preferred_wait_gives_the_ended_task(self, service, ann):
        body = {"image_url": await ann.image_url(), "text_prompt": "cat"}
        waiting = asyncio.create_task(ann("POST", "/api/v1/segment", json=body, headers={"Prefer": "wait=30"}))
        while not (claims := await service.parts.task_queue.claim_batch("w", limit=1, lease_s=60)):
            await asyncio.sleep(0.01)
        await service.parts.task_queue.release(claims[0].lease)
        await service.finish(claims[0].task.task_id)
        task = data_of(await waiting, TaskResponse)
        assert (task["status"], task["result_id"]) == ("done", task["task_id"])

    @pytest.mark.parametrize("prefer", ["wait=0", "respond-async", "wait=soon", "wait=-1", "return=minimal; wait=0"])
    async def test_a_wait_that_times_out_or_is_malformed_is_202(self, ann, prefer):
        data_of(await ann.segment(headers={"Prefer": prefer}), SegmentResponse, 202)

    async def test_a_wait_without_room_is_not_reported_as_applied(self, ann, monkeypatch):
        monkeypatch.setattr(Edge, "can_wait", lambda edge, caller: False)
        response = await ann.segment(headers={"Prefer": "wait=30"})
        data_of(response, SegmentResponse, 202)
        assert "preference-applied" not in response.headers


class TestTasks:
    async def test_a_task_tells_each_state(self, service, ann):
        task_id = await ann.task_id()
        task = data_of(await ann("GET", f"/api/v1/tasks/{task_id}"), TaskResponse)
        assert set(task) == {"task_id", "status", "created_at", "updated_at"}
        assert (task["task_id"], task["status"]) == (task_id, "pending")
        await service.finish(task_id)
        task = data_of(await ann("GET", f"/api/v1/tasks/{task_id}"), TaskResponse)
        assert set(task) == {"task_id", "status", "result_id", "created_at", "updated_at"}
        assert (task["status"], task["result_id"]) == ("done", task_id)

    async def test_a_cancelled_task_is_in_error_and_refunded(self, ann):
        task_id = await ann.task_id()
        for _ in range(2):
            task = data_of(await ann("POST", f"/api/v1/tasks/{task_id}/cancel"), TaskResponse)
            assert set(task) == {"task_id", "status", "error_message", "created_at", "updated_at"}
            assert (task["status"], task["error_message"]) == ("error", "cancelled")
        assert await ann.credits() == 10

    async def test_an_unchanged_task_is_304(self, service, ann):
        task_id = await ann.task_id()
        path = f"/api/v1/tasks/{task_id}"
        etag = (await ann("GET", path)).headers["etag"]
        for known in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
            response = await ann("GET", path, headers={"If-None-Match": known})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert (await ann("GET", path, headers={"If-None-Match": '"x"'})).status_code == 200
        await service.finish(task_id)
        response = await ann("GET", path, headers={"If-None-Match": etag})
        assert data_of(response, TaskResponse)["status"] == "done"
        assert response.headers["etag"] != etag


class TestResults:
    async def test_a_result_before_and_after(self, service, ann):
        task_id = await ann.task_id()
        fields = {
            *("id", "project_id", "source_image_url", "mask_image_url", "text_prompt", "labels", "metadata"),
            *("status", "created_at", "updated_at"),
        }
        before = data_of(await ann("GET", f"/api/v1/results/{task_id}"), ResultDetailResponse)
        assert set(before) == fields
        assert (before["mask_image_url"], before["labels"], before["project_id"]) == ("", [], None)
        assert before["metadata"] == {"inference_time_ms": 0, "confidence": 0, "model_version": ""}
        await service.finish(task_id)
        after = data_of(await ann("GET", f"/api/v1/results/{task_id}"), ResultDetailResponse)
        assert set(after) == fields
        assert after["labels"] == ["cat"]
        assert after["metadata"] == {"inference_time_ms": 12.5, "confidence": 0.75, "model_version": "test"}
        assert after["mask_image_url"].endswith(".png")

    async def test_the_list_is_newest_first_and_pages(self, ann):
        ids = [await ann.task_id() for _ in range(5)][::-1]
        page = data_of(await ann("GET", "/api/v1/results"), ResultsListResponse)
        assert (page["total"], page["page"], page["limit"]) == (5, 1, 20)
        assert [one["id"] for one in page["results"]] == ids
        fields = {"id", "source_image_url", "mask_image_url", "text_prompt", "status", "created_at"}
        assert all(set(one) == fields for one in page["results"])
        second = data_of(await ann("GET", "/api/v1/results?page=2&limit=2"), ResultsListResponse)
        assert [one["id"] for one in second["results"]] == ids[2:4]
        beyond = data_of(await ann("GET", "/api/v1/results?page=9"), ResultsListResponse)
        assert (beyond["results"], beyond["total"], beyond["page"]) == ([], 5, 9)

    async def test_cursors_walk_the_whole_list_once(self, ann):
        ids = [await ann.task_id() for _ in range(5)][::-1]
        seen, query = [], {"limit": "2"}
        while True:
            page = data_of(await ann("GET", "/api/v1/results", params=query), ResultsListResponse)
            seen += [one["id"] for one in page["results"]]
            if "next_cursor" not in page:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == ids

    @pytest.mark.parametrize(
        "query",
        [
            *("page=0", "page=-1", "page=x", "page=1.5", "page=", "page=99999999999999999999", "page=NaN"),
            *("page=1_0", "page=%201", "page=%2B1", "page=1.0", "page=%D9%A1", "limit=1_0", "limit=1e1"),
            *("limit=0", "limit=101", "limit=-1", "limit=ten", "cursor=x", "cursor=", "cursor=%00", "project_id=x"),
            *("page=1&page=2", "cursor=" + "A" * 500),
        ],
    )
    async def test_a_bad_query_is_400(self, ann, query):
        assert error_of(await ann("GET", f"/api/v1/results?{query}")) == (400, "INVALID_REQUEST")

    async def test_the_largest_page_is_a_hundred(self, ann):
        page = data_of(await ann("GET", "/api/v1/results?limit=100&unknown=1"), ResultsListResponse)
        assert page["limit"] == 100

    async def test_a_project_filters_and_a_foreign_one_is_empty(self, ann, bob):
        project = (await ann("POST", "/api/v1/projects", json={"name": "cats"})).json()["data"]["id"]
        inside = (await ann.segment(project_id=project)).json()["data"]["task_id"]
        await ann.task_id()
        page = data_of(await ann("GET", f"/api/v1/results?project_id={project}"), ResultsListResponse)
        assert ([one["id"] for one in page["results"]], page["total"]) == ([inside], 1)
        foreign = data_of(await bob("GET", f"/api/v1/results?project_id={project}"), ResultsListResponse)
        assert (foreign["results"], foreign["total"]) == ([], 0)


class TestOwnership:
    async def test_is_byte_identical_to_what_does_not_exist(self, service, ann, bob):
        task_id = await bob.task_id()
        image_id = (await bob.upload()).json()["data"]["image_id"]
        project = (await bob("POST", "/api/v1/projects", json={"name": "b"})).json()["data"]["id"]
        requests = [
            ("GET", "/api/v1/tasks/{}", task_id, {}),
            ("GET", "/api/v1/tasks/{}/events", task_id, {}),
            ("POST", "/api/v1/tasks/{}/cancel", task_id, {}),
            ("GET", "/api/v1/results/{}", task_id, {}),
            ("DELETE", "/api/v1/results/{}", task_id, {}),
            ("DELETE", "/api/v1/images/{}", image_id, {}),
            ("GET", "/api/v1/projects/{}", project, {}),
            ("PATCH", "/api/v1/projects/{}", project, {"json": {"name": "mine"}}),
            ("DELETE", "/api/v1/projects/{}", project, {}),
        ]
        for method, path, theirs, extra in requests:
            foreign = await ann(method, path.format(theirs), **extra)
            absent = [await ann(method, path.format(it), **extra) for it in (uuid.uuid4(), "x", "%00", "'--", "9" * 99)]
            assert error_of(foreign) == (404, "NOT_FOUND")
            assert {str(but_for_ids(one)) for one in [foreign, *absent]} == {str(but_for_ids(foreign))}, path
        assert (await bob("GET", f"/api/v1/tasks/{task_id}")).json()["data"]["status"] == "pending"

    async def test_in_a_body_it_is_400(self, ann, bob):
        project = (await bob("POST", "/api/v1/projects", json={"name": "b"})).json()["data"]["id"]
        assert error_of(await ann.segment(project_id=project)) == (400, "INVALID_REQUEST")
        assert error_of(await ann.upload(project_id=project)) == (400, "INVALID_REQUEST")


class TestRateLimits:
    @pytest.mark.parametrize("tier", list(Tier))
    @pytest.mark.parametrize(
        ("action", "method", "path"),
        [
            (Action.RESULTS, "GET", "/api/v1/results"),
            (Action.TASKS, "GET", "/api/v1/tasks/5b0c9a52-7a0e-4c7e-8f31-3f6f1c2d4e90"),
            (Action.UPLOAD, "POST", "/api/v1/upload"),
        ],
    )
    async def test_each_tier_gets_what_the_table_says(self, tmp_path, tier, action, method, path):
        async with running(tmp_path, rate_limits="contract") as service:
            user = await service.user(tier=tier)
            limit = RATE_LIMITS[tier][action]
            for _ in range(limit):
                assert (await user(method, path)).status_code in (200, 400, 404)
            refused = await user(method, path)
            assert error_of(refused) == (429, "RATE_LIMITED")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.headers["ratelimit-policy"] == f'"{action}";q={limit};w=60'
            assert re.fullmatch(rf'"{action}";r=0;t=\d+', refused.headers["ratelimit"])
            assert error_of(await (await service.user("other"))(method, path))[0] != 429 if method != "GET" else True

    async def test_over_the_limit_an_upload_is_refused_before_its_body_is_read(self, tmp_path):
        async with running(tmp_path, rate_limits="contract") as service:
            user = await service.user(tier=Tier.FREE)
            for _ in range(RATE_LIMITS[Tier.FREE][Action.UPLOAD]):
                await user.upload()

            async def body():
                raise AssertionError("the body was read")
                yield b""

            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            refused = await user("POST", "/api/v1/upload", content=body(), headers=headers)
            assert error_of(refused) == (429, "RATE_LIMITED")

    async def test_submits_are_limited_and_the_refused_one_is_free(self, tmp_path):
        async with running(tmp_path, rate_limits="contract") as service:
            user = await service.user(tier=Tier.FREE)
            url = await user.image_url()
            for left in (4, 3, 2, 1, 0):
                response = await user("POST", "/api/v1/segment", json={"image_url": url, "text_prompt": "cat"})
                assert response.status_code == 202
                assert response.headers["ratelimit-policy"] == '"segment";q=5;w=60'
                assert response.headers["ratelimit"].startswith(f'"segment";r={left};t=')
            refused = await user("POST", "/api/v1/segment", json={"image_url": url, "text_prompt": "cat"})
            assert error_of(refused) == (429, "RATE_LIMITED")
            assert refused.headers["ratelimit-policy"] == '"segment";q=5;w=60'
            assert await user.credits() == 5

    async def test_polling_has_a_bucket_of_its_own(self, tmp_path):
        async with running(tmp_path, rate_limits="contract") as service:
            user = await service.user(tier=Tier.FREE)
            for _ in range(60):
                await user("GET", "/api/v1/results")
            assert (await user("GET", "/api/v1/results")).status_code == 429
            assert (await user("GET", f"/api/v1/tasks/{uuid.uuid4()}")).status_code == 404

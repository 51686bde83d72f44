"""The gpu service over HTTP, to the letter of the contract: every route, code and field."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import uuid
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from s3seg.api.envelope import GpuErrorResponse
from s3seg.api.gpu import BatchPredictResponse, HealthResponse, ModelInfoResponse, PredictResponse
from s3seg.errors import CheckpointNotFoundError, ConfigurationError, InferenceError, UnavailableError
from s3seg.inference.segmenter import Segmenter
from s3seg.inference.worker import WorkerLimits
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.visual import clicks_of
from s3seg.web.gpu_app import build_gpu_app
from s3seg.web.gpu_metrics import PrometheusMetrics
from s3seg.web.metrics import HttpMetrics
from tests.helpers.inference_system import STREET, USER, InferenceSystem, png

pytestmark = pytest.mark.anyio
KEY, OLD_KEY = "correct horse", "b\u00e4ttery staple"


@contextlib.asynccontextmanager
async def serving(system, *, keys=(KEY, OLD_KEY), wait=True, **options):
    metrics = HttpMetrics()
    system.metrics = PrometheusMetrics(metrics.registry)
    options.setdefault("worker", WorkerLimits(poll_s=3600))
    engine = system.engine(**options)
    app = build_gpu_app(engine, keys=keys, metrics=metrics)
    engine.start()
    if wait:
        await engine.loaded()
        system.network.began.clear()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gpu", headers={"X-API-Key": KEY}) as client:
        client.engine, client.metrics = engine, metrics.registry.get_sample_value
        yield client
    system.network.go.set()
    await engine.aclose()


def body_of(task, **changes):
    row = {"image_url": task.source_image_url, "user_id": task.user_id, "task_id": task.task_id}
    prompts = {"prompts": list(task.prompts)} if len(task.prompts) > 1 else {"text_prompt": task.text_prompt}
    return row | prompts | changes


def error_of(answer):
    error = GpuErrorResponse.model_validate(answer.json()).error
    return answer.status_code, error.code


async def predict(client, task, **changes):
    path = "/api/v1/predict/batch" if len(task.prompts) > 1 else "/api/v1/predict"
    return await client.post(path, json=body_of(task, **changes))


async def test_predict_answers_what_is_stored_in_the_row(system):
    async with serving(system) as client:
        task = await system.submit("left")
        answer = await predict(client, task)
        assert answer.status_code == 200
        said = PredictResponse.model_validate(answer.json())
        row = await system.queue.get_task(task.task_id)
        assert set(answer.json()) == {"task_id", "mask_url", "labels", "inference_time_ms", "confidence"}
        assert said.task_id == task.task_id
        assert said.mask_url == row.mask_image_url
        assert said.labels == ["left"]
        assert said.confidence == row.metadata["confidence"] == 0.75
        assert said.inference_time_ms == row.metadata["inference_time_ms"]
        assert system.objects.key_of(said.mask_url) in await system.result_keys()
        assert (await predict(client, task)).json() == answer.json()  # a repeat is harmless
        assert system.network.asked == [["left"]]


async def test_batch_answers_one_response_per_prompt_in_order(system):
    async with serving(system) as client:
        task = await system.submit("b", "nothing", "a")
        answer = await predict(client, task)
        assert answer.status_code == 200
        said = BatchPredictResponse.model_validate(answer.json())
        assert said.task_id == task.task_id
        assert [one.labels for one in said.results] == [["b"], [], ["a"]]
        assert [one.confidence for one in said.results] == [0.75, 0, 0.75]
        assert {one.task_id for one in said.results} == {task.task_id}
        assert len({one.mask_url for one in said.results}) == 3
        assert said.total_inference_time_ms == pytest.approx(
            sum(one.inference_time_ms for one in said.results), abs=0.01
        )
        assert (await predict(client, task)).json() == answer.json()
        assert len(system.network.encoded) == 1
        joined = await client.post(
            "/api/v1/predict",
            json={
                "image_url": task.source_image_url,
                "user_id": task.user_id,
                "task_id": task.task_id,
                "text_prompt": "b, nothing, a",
            },
        )
        assert joined.json()["labels"] == ["b", "a"]


async def test_batch_of_one_prompt_is_a_batch(system):
    async with serving(system) as client:
        task = await system.submit("left")
        row = {"image_url": task.source_image_url, "user_id": task.user_id, "task_id": task.task_id}
        answer = await client.post("/api/v1/predict/batch", json=row | {"prompts": ["left"]})
        assert [one["labels"] for one in answer.json()["results"]] == [["left"]]


async def test_prompts_are_compared_in_their_normal_form(system):
    async with serving(system) as client:
        task = await system.submit("left")
        assert (await predict(client, task, text_prompt="left\n")).json()["labels"] == ["left"]
        task = await system.submit("a", "b")
        answer = await predict(client, task, prompts=["\u201ca\u201d", " b", "a"])  # and duplicates are one prompt
        assert [one["labels"] for one in answer.json()["results"]] == [["a"], ["b"], ["a"]]


async def test_two_requests_on_two_pictures_share_one_forward_pass(system):
    async with serving(system) as client:
        system.network.go.clear()
        first = asyncio.ensure_future(predict(client, await system.submit(content=png(1))))
        async with asyncio.timeout(20):
            while not system.network.began.is_set():
                await asyncio.sleep(0.002)
            tasks = [await system.submit(content=png(n)) for n in (2, 3)]
            asking = [asyncio.ensure_future(predict(client, task)) for task in tasks]
            while client.engine._batcher.waiting < 2:
                await asyncio.sleep(0.002)
        passes = client.metrics("s3seg_image_forward_passes_total")
        system.network.go.set()
        assert [answer.status_code for answer in await asyncio.gather(first, *asking)] == [200, 200, 200]
        assert client.metrics("s3seg_images_encoded_total") == 3  # the first, and two
        assert client.metrics("s3seg_image_forward_passes_total") == passes + 2  # the first, and one for both
        assert system.network.encoded[-1] == 2


async def test_health_answers_while_the_network_is_busy(system):
    async with serving(system) as client:
        system.network.go.clear()
        asking = [asyncio.ensure_future(predict(client, await system.submit(content=png(n)))) for n in range(5)]
        async with asyncio.timeout(20):
            while not system.network.began.is_set():
                await asyncio.sleep(0.002)
        for _ in range(20):
            answer = await asyncio.wait_for(client.get("/health"), 5)
            assert answer.json()["model_loaded"] is True
        assert not any(one.done() for one in asking)
        system.network.go.set()
        await asyncio.gather(*asking)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/predict"), ("POST", "/api/v1/predict/batch"), ("GET", "/api/v1/model/info")],
)
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (None, "AUTH_REQUIRED"),
        ("", "AUTH_REQUIRED"),
        ("wrong", "AUTH_INVALID"),
        (KEY[:-1], "AUTH_INVALID"),
        (KEY + "x", "AUTH_INVALID"),
        ("\xff" * 5000, "AUTH_INVALID"),
    ],
)
async def test_every_inference_route_wants_the_key_before_anything_else(system, method, path, sent, code):
    async with serving(system) as client:
        del client.headers["X-API-Key"]
        headers = {} if sent is None else {"X-API-Key": sent.encode("latin-1")}
        answer = await client.request(method, path, headers=headers, content=b"not even JSON")
    assert error_of(answer) == (401, code)
    assert KEY not in answer.text


@pytest.mark.parametrize("sent", [KEY, OLD_KEY, "wrong", KEY[:-1]])
async def test_how_long_a_refusal_takes_tells_nothing_of_the_keys(system, monkeypatch, sent):
    """Every key is compared whole, by the comparison that is made for secrets, whichever of them fits."""
    compared = []

    def compare(one, other):
        compared.append({one, other})
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("s3seg.web.keys.hmac", SimpleNamespace(compare_digest=compare))
    async with serving(system) as client:
        await client.get("/api/v1/model/info", headers={"X-API-Key": sent.encode()})
    assert compared == [{sent.encode(), key.encode()} for key in (KEY, OLD_KEY)]


async def test_two_keys_are_good_while_they_are_changed_and_the_probes_need_none(system):
    async with serving(system) as client:
        old = {"X-API-Key": OLD_KEY.encode()}
        assert (await client.get("/api/v1/model/info", headers=old)).status_code == 200
        del client.headers["X-API-Key"]
        for open_path in ("/health", "/ready", "/metrics", "/openapi.json"):
            assert (await client.get(open_path)).status_code == 200


async def test_without_keys_the_routes_are_open(system):
    async with serving(system, keys=()) as client:
        del client.headers["X-API-Key"]
        assert (await client.get("/api/v1/model/info")).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/predict", "/api/v1/predict/batch"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}", b'{"task_id": 1}', b" " * 70_000],
)
async def test_a_bad_body_is_400(system, path, body):
    async with serving(system) as client:
        assert error_of(await client.post(path, content=body)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("field", ["image_url", "text_prompt", "user_id", "task_id"])
@pytest.mark.parametrize("wrong", [None, 7, ["x"], "missing"])
async def test_a_missing_or_ill_typed_field_is_400_and_named(system, field, wrong):
    async with serving(system) as client:
        body = body_of(await system.submit(), **{field: wrong})
        if wrong == "missing":
            del body[field]
        answer = await client.post("/api/v1/predict", json=body)
    assert error_of(answer) == (400, "INVALID_REQUEST")
    assert answer.json()["error"]["message"].startswith(field)


async def test_a_task_of_clicks_is_predicted_like_one_of_words(system):
    async with serving(system) as client:
        task = await system.submit_clicks(Clicks([(1, 1)]))
        clicks = [one.to_dict() for one in clicks_of(task.visual)]
        answer = await predict(client, task, clicks=clicks)
        assert answer.status_code == 200
        assert answer.json()["labels"] == ["point 1,1"]
        assert (await predict(client, task)).json() == answer.json()  # they need not be sent
        two = await system.submit_clicks(Clicks([(1, 1)]), Clicks([(7, 1)]))
        each = (await predict(client, two)).json()["results"]
        assert [one["labels"] for one in each] == [["point 1,1"], ["point 7,1"]]


async def test_a_task_with_tiles_is_predicted_and_a_tile_that_is_sent_must_be_its_own(system):
    async with serving(system) as client:
        task = await system.submit_tiles("left", tile=64, content=png(1, size=(128, 64)))
        assert (await predict(client, task)).json()["labels"] == ["left"]
        assert (await predict(client, task, tile=64)).status_code == 200
        several = await system.submit_tiles("left", "right", tile="auto", content=png(2, size=(128, 64)))
        assert len((await predict(client, several)).json()["results"]) == 2
        words = await system.submit("left")
        for asked, tile in ((task, "auto"), (task, 65), (several, 64), (words, 64)):
            answer = await predict(client, asked, tile=tile)
            assert error_of(answer) == (400, "INVALID_REQUEST")
            assert answer.json()["error"]["message"].startswith("tile")


@pytest.mark.parametrize("clicks", [[{"points": [[1, 2]]}], [{"points": [[1, 1]], "labels": [0]}], [], [{}], "x"])
async def test_clicks_that_differ_from_the_row_are_400(system, clicks):
    async with serving(system) as client:
        answer = await predict(client, await system.submit_clicks(Clicks([(1, 1)])), clicks=clicks)
        assert error_of(answer) == (400, "INVALID_REQUEST")
        assert answer.json()["error"]["message"].startswith("clicks")
        words = await predict(client, await system.submit("left"), clicks=[{"points": [[1, 1]]}])
        assert error_of(words) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", "8d1f7f3e-2a55-4c58-9d8c-0c7a6f0f2b11"),
        ("user_id", ""),
        ("image_url", "http://169.254.169.254/latest/meta-data"),
        ("image_url", "file:///etc/passwd"),
        ("image_url", "x" * 2049),
        ("text_prompt", "right"),
        ("text_prompt", ""),
        ("text_prompt", "left\0"),
        ("text_prompt", "x" * 501),
    ],
)
async def test_what_differs_from_the_row_is_400_and_leaves_the_task_alone(system, field, value):
    async with serving(system) as client:
        task = await system.submit("left")
        answer = await predict(client, task, **{field: value})
        assert error_of(answer) == (400, "INVALID_REQUEST")
        assert answer.json()["error"]["message"].startswith(field)
        assert await system.queue.get_task(task.task_id) == task


@pytest.mark.parametrize(
    "prompts", [[], ["a"], ["a", "b", "c"], ["b", "a"], ["a", ""], ["a", "b"] * 9, "a", ["a", "x" * 501]]
)
async def test_batch_prompts_must_be_those_of_the_row(system, prompts):
    async with serving(system) as client:
        task = await system.submit("a", "b")
        assert error_of(await predict(client, task, prompts=prompts)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "task_id", ["", "x", "5b0c9a52-7a0e-4c7e-8f31-3f6f1c2d4e90", "../../etc", "\u0000", "'; drop table tasks; --"]
)
async def test_an_unknown_task_is_404(system, task_id):
    async with serving(system) as client:
        answer = await predict(client, await system.submit(), task_id=task_id)
    assert error_of(answer) == (404, "NOT_FOUND")


async def test_a_task_of_another_user_is_not_worked_on(system):
    async with serving(system) as client:
        mine, other = await system.submit(), await system.submit()
        stranger = str(uuid.uuid4())
        system.tables.tasks[other.task_id] = replace(other, user_id=stranger)
        answer = await predict(client, mine, task_id=other.task_id)
        assert error_of(answer) == (400, "INVALID_REQUEST")
        assert stranger not in answer.text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("gone", "upload it again"),
        ("undecodable", "not an image"),
        ("prompt", "99 tokens"),
        ("network", "could not process"),
    ],
)
async def test_a_task_that_fails_is_500_says_why_and_is_refunded(system, spoil, said):
    async with serving(system) as client:
        before = await system.credits()
        task = await system.submit(
            "x" * 50 if spoil == "prompt" else "left", content=b"<html>" if spoil == "undecodable" else png(3)
        )
        if spoil == "gone":
            await system.objects.delete(system.objects.key_of(task.source_image_url))
        if spoil == "network":
            system.network.fail = [InferenceError("CUDA error at 0xdead")] * 3
        answer = await predict(client, task)
        assert error_of(answer) == (500, "INFERENCE_FAILED")
        assert said in answer.json()["error"]["message"]
        assert "0xdead" not in answer.text
        assert await system.credits() == before
        repeat = await predict(client, task)
        assert repeat.json() == answer.json()
        assert await system.credits() == before


async def test_a_cancelled_task_is_500_and_says_so(system):
    async with serving(system) as client:
        task = await system.submit()
        await system.store.cancel(USER, task.task_id)
        answer = await predict(client, task)
    assert error_of(answer) == (500, "INFERENCE_FAILED")
    assert answer.json()["error"]["message"] == "cancelled"


async def test_before_the_model_is_loaded_it_says_so_everywhere(system):
    import threading

    go = threading.Event()

    def slowly():
        assert go.wait(20)
        return system.network

    async with serving(system, load=slowly, wait=False) as client:
        task = await system.submit()
        health = HealthResponse.model_validate((await client.get("/health")).json())
        assert (health.status, health.model_loaded) == ("loading", False)
        assert error_of(await predict(client, task)) == (503, "MODEL_NOT_LOADED")
        assert error_of(await client.get("/api/v1/model/info")) == (503, "MODEL_NOT_LOADED")
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["ready"], ready.json()["parts"]["model"]) == (503, False, "loading")
        go.set()
        await client.engine.loaded()
        assert (await client.get("/ready")).json() == {
            "ready": True,
            "parts": {"model": "ok", "objects": "ok", "tasks": "ok"},
        }
        assert (await predict(client, task)).status_code == 200


async def test_a_model_that_cannot_be_loaded_is_told_by_the_probes(system):
    def missing():
        raise CheckpointNotFoundError("no checkpoint at /somewhere")

    async with serving(system, load=missing, wait=False) as client:
        with contextlib.suppress(Exception):
            await client.engine.loaded()
        assert (await client.get("/health")).json()["status"] == "failed"
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["parts"]["model"] == "it cannot be loaded; the log says why"
        assert "/somewhere" not in ready.text  # it is open to all
        assert error_of(await client.get("/api/v1/model/info")) == (503, "MODEL_NOT_LOADED")


async def test_health_and_model_info_tell_what_is_loaded(system):
    async with serving(system) as client:
        health = HealthResponse.model_validate((await client.get("/health")).json())
        assert health == HealthResponse(
            status="ok",
            model_loaded=True,
            gpu_available=True,
            gpu_name="obedient 9000",
            vram_used_mb=1.0,
            vram_total_mb=2.0,
        )
        info = ModelInfoResponse.model_validate((await client.get("/api/v1/model/info")).json())
        assert info == ModelInfoResponse(
            model_name="obedient",
            model_version="1",
            parameters=7,
            weights_size_gb=28e-9,
            device="cpu",
            dtype="float32",
        )


async def test_ready_says_which_part_is_down(system):
    class Broken:
        def __getattr__(self, name):
            return getattr(system.queue, name)

        async def check(self):
            raise UnavailableError("the task database does not answer: disk full")

    async with serving(system, queue=Broken()) as client:
        ready = await client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["parts"] == {
        "model": "ok",
        "objects": "ok",
        "tasks": "the task database does not answer: disk full",
    }
    assert "tasks: " in ready.json()["message"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConfigurationError("S3SEG_R2_BUCKET=secret-bucket: none"),
            "configuration error; see the log of the service",
        ),
        (KeyError("secret-bucket"), "the check failed; see the log of the service"),
    ],
)
async def test_ready_keeps_settings_and_crashes_of_a_part_for_the_log(system, error, said, caplog):
    class Broken:
        def __getattr__(self, name):
            return getattr(system.objects, name)

        async def check(self):
            raise error

    async with serving(system, objects=Broken()) as client:
        ready = await client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["parts"] == {"model": "ok", "objects": said, "tasks": "ok"}
    assert "secret-bucket" not in ready.text
    assert "secret-bucket" in caplog.text


async def test_a_task_that_is_done_is_answered_whatever_the_service_is_busy_with(system):
    async with serving(system, worker=WorkerLimits(admitted=1, poll_s=3600)) as client:
        done = await system.submit()
        first = await predict(client, done)
        system.network.go.clear()
        busy = asyncio.ensure_future(predict(client, await system.submit(content=png(1))))
        async with asyncio.timeout(20):
            while client.engine.worker.load < 1:
                await asyncio.sleep(0.002)
        assert error_of(await predict(client, await system.submit())) == (503, "UNAVAILABLE")
        at_capacity = await predict(client, done)
        client.engine.worker.drain()
        while_draining = await predict(client, done)
        system.network.go.set()
        await busy
    async with serving(system, load=lambda: 1 / 0, wait=False) as client:
        without_a_model = await predict(client, done)
    for answer in (at_capacity, while_draining, without_a_model):
        assert (answer.status_code, answer.json()) == (200, first.json())


async def test_an_overloaded_service_answers_503_with_retry_after_and_then_recovers(system):
    async with serving(system, worker=WorkerLimits(admitted=2, poll_s=3600)) as client:
        system.network.go.clear()
        tasks = [await system.submit(content=png(n)) for n in range(3)]
        asking = [asyncio.ensure_future(predict(client, task)) for task in tasks[:2]]
        async with asyncio.timeout(20):
            while client.engine.worker.load < 2:
                await asyncio.sleep(0.002)
        refused = await predict(client, tasks[2])
        assert error_of(refused) == (503, "UNAVAILABLE")
        assert int(refused.headers["Retry-After"]) >= 1
        assert await system.queue.get_task(tasks[2].task_id) == tasks[2]
        system.network.go.set()
        await asyncio.gather(*asking)
        assert (await predict(client, tasks[2])).status_code == 200


async def test_a_draining_service_is_not_ready_and_refuses(system):
    async with serving(system) as client:
        client.engine.worker.drain()
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["parts"]["worker"]) == (503, "stopping")
        refused = await predict(client, await system.submit())
        assert error_of(refused) == (503, "UNAVAILABLE")


async def test_a_queue_that_is_down_is_503(system):
    class Down:
        def __getattr__(self, name):
            return getattr(system.queue, name)

        async def get_task(self, task_id):
            raise UnavailableError("the task database does not answer: locked")

    async with serving(system, queue=Down()) as client:
        answer = await predict(client, await system.submit())
    assert error_of(answer) == (503, "UNAVAILABLE")
    assert answer.headers["Retry-After"] == "1"


async def test_a_prediction_is_cancelled_when_its_client_disconnects(system):
    async with serving(system) as client:
        system.network.go.clear()
        first = asyncio.ensure_future(predict(client, await system.submit(content=png(1))))
        async with asyncio.timeout(20):
            while not system.network.began.is_set():
                await asyncio.sleep(0.002)
        task = await system.submit("unwanted", content=png(2))
        await post_and_hang_up(client._transport.app, body_of(task))
        async with asyncio.timeout(20):
            while (await system.queue.get_task(task.task_id)).attempts.released != 1:
                await asyncio.sleep(0.002)
        system.network.go.set()
        await first
        assert ["unwanted"] not in system.network.asked


async def post_and_hang_up(app, body):
    """Speak ASGI by hand: a POST whose client closes the connection soon after."""
    import json

    sent = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive():
        if sent:
            return sent.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/predict",
        "raw_path": b"/api/v1/predict",
        "query_string": b"",
        "headers": [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")],
        "server": ("gpu", 80),
        "scheme": "http",
    }
    await app(scope, receive, send)


async def test_unknown_routes_and_methods_have_the_contracts_error_body(system):
    async with serving(system) as client:
        assert error_of(await client.get("/api/v1/nothing")) == (404, "NOT_FOUND")
        assert error_of(await client.get("/api/v1/predict")) == (405, "METHOD_NOT_ALLOWED")


async def test_the_request_id_of_the_edge_is_kept(system):
    sent = str(uuid.uuid4())
    async with serving(system) as client:
        answer = await client.get("/health", headers={"X-Request-Id": sent})
    assert answer.headers["X-Request-Id"] == sent


async def test_metrics_tell_of_stages_batches_the_cache_and_errors(system):
    async with serving(system) as client:
        task = await system.submit()
        await predict(client, task)
        await predict(client, await system.submit(image_url=task.source_image_url))
        await predict(client, task, task_id="unknown")
        value = client.metrics
        assert value("s3seg_predictions_total", {"ended": "DONE"}) == 2
        assert value("s3seg_embedding_cache_total", {"outcome": "hit"}) == 1
        for stage in ("fetch", "read", "wait", "image", "prompt", "masks", "store", "finish"):
            assert value("s3seg_stage_seconds_count", {"stage": stage}) >= 2, stage
        assert value("s3seg_http_errors_total", {"route": "/api/v1/predict", "code": "NOT_FOUND"}) == 1
        assert value("s3seg_gpu_memory_used_bytes", {"network": "0", "device": "cpu"}) == 2**20
        assert value("s3seg_network_up", {"network": "0", "device": "cpu"}) == 1
        assert "s3seg_stage_seconds_bucket" in (await client.get("/metrics")).text


@pytest.fixture(scope="module")
def real_network():
    return Segmenter("embedded", device="cpu").network


async def test_the_embedded_model_behind_http_finds_the_cars(real_network):
    system = InferenceSystem()
    async with serving(system, load=lambda: real_network) as client:
        task = await system.submit("car", "xylophone", content=STREET)
        answer = BatchPredictResponse.model_validate((await predict(client, task)).json())
        car, xylophone = answer.results
        assert car.labels == ["car"]
        assert car.confidence > 0.5
        assert (xylophone.labels, xylophone.confidence) == ([], 0)
        info = (await client.get("/api/v1/model/info")).json()
        assert info["parameters"] == real_network.parameters > 1_000_000
        assert info["device"] == "cpu"
        assert (await client.get("/health")).json()["gpu_available"] is False


def test_it_refuses_to_start_without_a_key(monkeypatch, tmp_path):
    from s3seg.app import gpu_app
    from s3seg.app.settings import Settings

    monkeypatch.chdir(tmp_path)
    for empty in (None, "", "   "):
        with pytest.raises(ConfigurationError, match="API_SECRET_KEY"):
            gpu_app(Settings(data_dir=tmp_path, api_secret_key=empty))

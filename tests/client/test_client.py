"""The client, against scripted responses and against the real services."""

import asyncio
import inspect
import io
import json
import threading
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest
from PIL import Image

import s3seg
from s3seg import errors
from s3seg.api.codes import ERROR_CODES
from s3seg.app import whole_app
from s3seg.app.settings import Settings
from s3seg.client import AsyncClient, Client, RetryPolicy
from s3seg.client._core import _polling_interval
from s3seg.client._images import prepare
from s3seg.tasks.limits import Tier
from tests.helpers.pictures import encoded
from tests.helpers.quick_worker import Square
from tests.helpers.running_edge import running

pytestmark = pytest.mark.anyio
TASK = "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11"
META = {"request_id": TASK, "timestamp": "2026-01-01T00:00:00Z"}
ME = {"user_id": TASK, "tier": "free", "credits": 3, "limits": {"upload": 1, "segment": 1, "results": 1, "tasks": 1}}


def ok(data, status=200, **headers):
    body = {"success": True, "data": data, "error": None, "meta": META}
    return httpx.Response(status, json=body, headers=headers)


def refused(code, message="no", **headers):
    body = {"success": False, "data": None, "error": {"code": code, "message": message}, "meta": META}
    return httpx.Response(ERROR_CODES[code].status, json=body, headers=headers)


class Script:
    """Responds to requests from a list, and records them; an exception in the list is raised.

    The service takes no uploads straight to its storage, which it says by itself, unrecorded.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        request.read()
        if request.url.path == "/health":
            return ok({"status": "ok", "version": "0", "direct_uploads": False})
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options):
        http = httpx.Client(transport=httpx.MockTransport(self))
        return Client("http://edge.example/", "secret-token", http=http, **options)


@pytest.fixture
def pauses(monkeypatch):
    """The lengths of all pauses, which are recorded instead of slept."""
    pauses = []
    monkeypatch.setattr("s3seg.client._sync.time.sleep", pauses.append)
    return pauses


class TestRetries:
    @pytest.mark.parametrize("code", ["RATE_LIMITED", "UNAVAILABLE"])
    def test_a_retry_waits_as_long_as_retry_after_says(self, pauses, code):
        script = Script(refused(code, **{"Retry-After": "7"}), ok(ME))
        assert script.client().me().credits == 3
        assert pauses == [7.0]

    def test_rate_limits_do_not_count_as_retries(self, pauses):
        script = Script(*[refused("RATE_LIMITED", **{"Retry-After": "20"})] * 8, ok(ME))
        script.client(retry_policy=RetryPolicy(retries=1)).me()
        assert pauses == [20.0] * 8

    def test_retries_end(self, pauses):
        script = Script(*[refused("UNAVAILABLE", **{"Retry-After": "1"})] * 3)
        with pytest.raises(errors.UnavailableError):
            script.client(retry_policy=RetryPolicy(retries=2)).me()
        assert len(pauses) == 2
        script = Script(refused("RATE_LIMITED", **{"Retry-After": "400"}))
        with pytest.raises(errors.RateLimitedError) as limited:
            script.client(retry_policy=RetryPolicy(max_elapsed_s=300)).me()
        assert limited.value.retry_after == 400

    @pytest.mark.parametrize("lost", [httpx.ConnectError("x"), httpx.ReadError("x"), httpx.RemoteProtocolError("x")])
    def test_lost_requests_are_repeated(self, pauses, lost):
        script = Script(lost, httpx.Response(502, text="<html>"), ok(ME))
        assert script.client().me().credits == 3
        assert pauses[0] < pauses[1]

    def test_a_request_that_is_not_repeatable_is_repeated_only_if_it_was_not_sent(self, pauses):
        script = Script(httpx.ReadError("x"))
        with pytest.raises(errors.UnavailableError):
            script.client().create_project("p")
        script = Script(httpx.ConnectError("x"), httpx.ConnectError("x"), ok({}))  # it was never sent
        with pytest.raises(errors.S3segError, match="not from an s3seg service"):
            script.client().create_project("p")
        assert len(script.requests) == 3

    def test_a_lost_submit_is_repeated_with_the_same_idempotency_key(self, pauses):
        script = Script(httpx.ReadError("x"), ok({"task_id": TASK, "status": "pending"}, 202))
        script.client().submit("http://x/i.png", "cat")
        keys = [request.headers["idempotency-key"] for request in script.requests]
        assert keys[0] == keys[1]
        assert len(keys[0]) == 36

    def test_client_errors_are_not_retried(self, pauses):
        for code in ("INVALID_REQUEST", "AUTH_INVALID", "NOT_FOUND", "INSUFFICIENT_CREDITS", "INTERNAL_ERROR"):
            script = Script(refused(code))
            with pytest.raises(errors.S3segError):
                script.client().me()
        assert pauses == []


class TestErrors:
    @pytest.mark.parametrize("code", list(ERROR_CODES))
    def test_every_error_code_raises_the_error_with_that_code(self, pauses, code):
        script = Script(*[refused(code, "what happened", **{"Retry-After": "1"})] * 3)
        with pytest.raises(errors.S3segError, match="what happened") as raised:
            script.client(retry_policy=RetryPolicy(retries=0, max_elapsed_s=0)).me()
        expected = "INTERNAL_ERROR" if code == "METHOD_NOT_ALLOWED" else code
        assert raised.value.code == expected
        assert TASK in str(raised.value)  # the request's id, to find it in the log

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="<html>hello</html>"),
            httpx.Response(200, json={"hello": 1}),
            ok(None),
            ok({"credits": "many"}),
            httpx.Response(404, text="not here"),
            httpx.Response(500, text="oops"),
            httpx.Response(302, headers={"Location": "https://login.example"}),
        ],
    )
    def test_a_response_that_is_not_from_the_service_raises_an_s3seg_error(self, pauses, answer):
        with pytest.raises(errors.S3segError):
            Script(answer).client().me()

    def test_unknown_fields_are_ignored(self):
        assert Script(ok({**ME, "new": {"field": 1}})).client().me().credits == 3

    @pytest.mark.parametrize(
        ("url", "token", "said"), [("", "t", "URL"), ("edge.example", "t", "URL"), ("http://x", "", "token")]
    )
    def test_a_missing_url_or_token_is_named(self, monkeypatch, url, token, said):
        monkeypatch.delenv("S3SEG_URL", raising=False)
        monkeypatch.delenv("S3SEG_TOKEN", raising=False)
        with pytest.raises(errors.ConfigurationError, match=said):
            Client(url, token)

    def test_url_and_token_come_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("S3SEG_URL", "http://edge.example")
        monkeypatch.setenv("S3SEG_TOKEN", "secret-token")
        with Client() as client:
            assert "edge.example" in repr(client)
            assert "secret-token" not in repr(client) + repr(client._core)

    def test_invalid_arguments_raise_before_anything_is_sent(self):
        client = Script().client()
        for call in (
            lambda: client.segment(encoded(), ""),
            lambda: client.segment(encoded(), "x" * 501),
            lambda: client.segment(encoded(), ["cat", "a\0b"]),
            lambda: client.segment(encoded(), []),
            lambda: client.segment(encoded(), [f"x{n}" for n in range(17)]),
        ):
            with pytest.raises(errors.PromptError):
                call()
        with pytest.raises(errors.InvalidRequestError, match="threshold"):
            client.segment(encoded(), "cat", threshold=0.05)
        with pytest.raises(errors.ImageDecodeError):
            client.segment(b"no picture", "cat")
        with pytest.raises(errors.ImageDecodeError, match="no such file"):
            client.segment("nowhere.png", "cat")
        with pytest.raises(errors.InvalidRequestError, match="UUID"):
            client.task("../me")


class NeverDone:
    """A service whose tasks never end by themselves; it says when one is submitted, and keeps what is cancelled."""

    def __init__(self, submitted):
        self.submitted, self.cancelled = submitted, []

    def __call__(self, request):
        path, task = request.url.path, {"task_id": TASK, "status": "pending"}
        if path.endswith("/segment"):
            self.submitted()
            return ok(task, 202)
        if path.endswith("/upload"):
            return ok({"image_id": TASK, "image_url": "http://x/i.png", "size_bytes": 1, "content_type": "image/png"})
        if path.endswith("/cancel"):
            self.cancelled.append(path)
        return ok(task | {"created_at": META["timestamp"], "updated_at": META["timestamp"]})


class TestWaiting:
    def test_polling_slows_down_near_the_rate_limit(self):
        assert _polling_interval('"tasks";r=59;t=60') == 0
        assert _polling_interval('"tasks";r=1;t=40') == 20
        assert _polling_interval('"tasks";r=0;t=40') == 40
        assert _polling_interval("rubbish") == 0

    def test_a_task_that_takes_too_long_is_cancelled_and_raises(self, pauses, monkeypatch):
        live = {
            "task_id": TASK,
            "status": "processing",
            "created_at": META["timestamp"],
            "updated_at": META["timestamp"],
        }
        image = {"image_id": TASK, "image_url": "http://x/i.png", "size_bytes": 1, "content_type": "image/png"}
        accepted = ok({"task_id": TASK, "status": "pending"}, 202)
        script = Script(ok(image), accepted, ok(live), ok(live | {"status": "error", "error_message": "cancelled"}))
        with pytest.raises(TimeoutError):
            script.client().segment(encoded(), "cat", timeout=0)
        assert script.requests[-1].url.path == f"/api/v1/tasks/{TASK}/cancel"

    def test_the_wait_of_a_submit_fits_the_time_limits(self, pauses):
        failed = {"task_id": TASK, "status": "error", "error_message": "no"}
        failed |= {"created_at": META["timestamp"], "updated_at": META["timestamp"]}
        image = {"image_id": TASK, "image_url": "http://x/i.png", "size_bytes": 1, "content_type": "image/png"}
        for read_timeout, timeout, wait in ((None, 600, 20), (60, 600, 20), (5, 600, 2), (60, 7, 7)):
            script = Script(ok(image), ok(failed), ok(failed))
            http = httpx.Client(transport=httpx.MockTransport(script), timeout=read_timeout)
            with pytest.raises(errors.InferenceError):
                Client("http://edge.example", "t", http=http).segment(encoded(), "cat", timeout=timeout)
            assert script.requests[1].headers["Prefer"] == f"wait={wait}"

    def test_many_pictures_that_are_given_up_are_cancelled(self):
        submitted = threading.Semaphore(0)
        service = NeverDone(submitted.release)
        client = Client("http://edge.example", "t", http=httpx.Client(transport=httpx.MockTransport(service)))

        def sources():
            yield encoded()
            yield encoded()
            for _ in range(2):
                submitted.acquire()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(client.segment_many(sources(), "cat", batch_size=3))
        assert len(service.cancelled) == 2

    @pytest.mark.parametrize("many", [False, True])
    def test_a_call_that_is_cancelled_cancels_its_task(self, many):
        submitted = asyncio.Event()
        service = NeverDone(submitted.set)

        async def run():
            http = httpx.AsyncClient(transport=httpx.MockTransport(service))
            client = AsyncClient("http://edge.example", "t", http=http)

            async def all_of_many():
                return [found async for found in client.segment_many([encoded()], "cat")]

            call = asyncio.create_task(all_of_many() if many else client.segment(encoded(), "cat"))
            await submitted.wait()
            await asyncio.sleep(0.05)  # it waits for its result
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        asyncio.run(run())
        assert service.cancelled == [f"/api/v1/tasks/{TASK}/cancel"]

    def test_a_task_in_error_says_why(self, pauses):
        failed = {"task_id": TASK, "status": "error", "error_message": "the prompt has 40 tokens, at most 32"}
        failed |= {"created_at": META["timestamp"], "updated_at": META["timestamp"]}
        image = {"image_id": TASK, "image_url": "http://x/i.png", "size_bytes": 1, "content_type": "image/png"}
        script = Script(ok(image), ok(failed), ok(failed))
        with pytest.raises(errors.InferenceError, match="40 tokens"):
            script.client().segment(encoded(), "cat")


class TestImages:
    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
    def test_files_in_accepted_formats_are_sent_unchanged(self, tmp_path, image_format):
        data = encoded(image_format)
        path = tmp_path / "a.bin"
        path.write_bytes(data)
        for source in (path, str(path), data):
            assert prepare(source).data == data
        assert prepare(path).source == str(path)

    def test_other_images_are_sent_without_loss(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "a.bmp")
        for source in (tmp_path / "a.bmp", noise, Image.fromarray(noise)):
            picture = prepare(source)
            assert picture.content_type == "image/png"
            assert np.array_equal(s3seg.images.load(picture.data).pixels, noise)

    def test_a_file_that_is_too_large_is_made_to_fit_before_it_is_sent(self):
        assert len(prepare(encoded() + bytes(11 * 2**20)).data) < 10 * 2**20


def test_both_clients_have_the_same_methods():
    def calls(client):
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(client).items()
            if not name.startswith("_") and callable(method)
        }

    sync, other = calls(Client), calls(AsyncClient)
    assert sync.pop("close") == other.pop("aclose")
    assert sync == other


class TestAgainstTheService:
    @pytest.fixture
    async def service(self, tmp_path):
        async with running(tmp_path, public_base_url="http://edge.example/files") as service:
            yield service

    async def test_every_call_works(self, service):
        user = await service.user(tier=Tier.PRO)
        async with AsyncClient("http://edge.example", user.token, http=service.http) as client:
            project = await client.create_project("cats")
            assert (await client.rename_project(project.id, "dogs")).name == "dogs"
            assert [one.id for one in (await client.projects()).projects] == [project.id]
            image = await client.upload(encoded(), project_id=project.id)
            tasks = [
                await client.submit(image.image_url, prompt, project_id=project.id) for prompt in ("a", ["b", "c"])
            ]
            assert (await client.me()).credits == 7
            assert (await client.task(tasks[0].task_id)).status == "pending"
            with pytest.raises(errors.InvalidRequestError, match="not available yet"):
                await client.segmentations(tasks[0].task_id)
            assert (await client.cancel(tasks[0].task_id)).error_message == "cancelled"
            with pytest.raises(TimeoutError):
                await client.wait(tasks[1].task_id, timeout=0.1)
            assert (await client.wait(tasks[0].task_id)).status == "error"
            assert [one.id for one in (await client.results(limit=1)).results] == [tasks[1].task_id]
            listed = [one.id async for one in client.iter_results(project_id=project.id)]
            assert listed == [tasks[1].task_id, tasks[0].task_id]
            assert (await client.result(tasks[1].task_id)).text_prompt == "b, c"
            await client.delete_result(tasks[0].task_id)
            await client.delete_image(image.image_id)
            assert (await client.wait(tasks[1].task_id)).status == "error"
            await client.delete_project(project.id)
            with pytest.raises(errors.NotFoundError):
                await client.task(tasks[0].task_id)
            assert (await client.me()).credits == 10

    async def test_the_token_is_sent_to_the_service_only(self, service):
        user = await service.user()
        seen = []

        async def note(request):
            seen.append((request.url.path.split("/")[1], "authorization" in request.headers))

        service.http.event_hooks["request"].append(note)
        client = AsyncClient("http://edge.example", user.token, http=service.http)
        working = asyncio.create_task(_work_on_everything(service))
        await client.segment(encoded(), "cat")
        working.cancel()
        assert ("files", False) in seen
        assert set(seen) == {("health", False), ("api", True), ("files", False)}

    async def test_results_note_what_was_lost_in_reading_the_image(self, service):
        user = await service.user()
        tiff = io.BytesIO()
        Image.new("RGB", (8, 6)).save(tiff, "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 6))])
        client = AsyncClient("http://edge.example", user.token, http=service.http)
        working = asyncio.create_task(_work_on_everything(service))
        result = await client.segment(tiff.getvalue(), "cat")
        working.cancel()
        assert result.notes == ("only page 1 of 2 was read",)

    async def test_many_images_come_in_order_and_errors_are_reported(self, service, tmp_path):
        user = await service.user(tier=Tier.PRO)
        bad = tmp_path / "no picture.png"
        bad.write_text("no picture")
        sources = [encoded("JPEG", quality=10 * n + 5) for n in range(6)]
        sources.insert(2, bad)
        working = asyncio.create_task(_work_on_everything(service, for_s=60))
        failed = []
        async with AsyncClient("http://edge.example", user.token, http=service.http) as client:
            many = client.segment_many(sources, "cat", batch_size=2, on_error=lambda *what: failed.append(what))
            found = [(source, result.image.copy()) async for source, result in many]
            assert [type(error) for _, error in failed] == [errors.ImageDecodeError], failed
            assert [source for source, _ in found] == [source for source in sources if source is not bad]
            for source, pixels in found:
                assert np.array_equal(pixels, s3seg.images.load(source).pixels)
            ((source, error),) = failed
            assert source is bad
            assert isinstance(error, errors.ImageDecodeError)
            with pytest.raises(errors.ImageDecodeError):
                _ = [one async for one in client.segment_many([bad, *sources], "cat")]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    @pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-that-name/a.png", "a\0b"])
    def test_an_invalid_path_raises_an_s3seg_error(self, path):
        with pytest.raises(errors.ImageDecodeError):
            prepare(path)


async def _work_on_everything(service, for_s=0):
    """Process submitted tasks with the pipeline of the GPU service, and a fake network that finds a square.

    For ``for_s`` seconds, or until one task is done.
    """
    from concurrent.futures import ThreadPoolExecutor

    from s3seg.inference.pipeline import Pipeline

    with ThreadPoolExecutor(1) as cpu:
        pipeline = Pipeline(service.parts.task_queue, service.parts.objects, Square, cpu=cpu)
        give_up = time.monotonic() + max(for_s, 10)
        while time.monotonic() < give_up:
            for claim in await service.parts.task_queue.claim_batch("w", limit=10, lease_s=60):
                await pipeline.run(claim)
                if not for_s:
                    give_up = 0
            await asyncio.sleep(0.01)


class TestAgainstTheWholeService:
    """The edge with a real network, in this process."""

    PICTURE = "examples/pictures/street.png"

    async def test_the_result_equals_that_of_a_local_segmenter(self, tmp_path, monkeypatch):
        settings = Settings(
            _env_file=None,
            data_dir=tmp_path,
            public_base_url="http://edge.example/files",
            checkpoint="embedded",
            device="cpu",
            rate_limits="off",
            decode_processes=0,
        )
        app = whole_app(settings)
        from s3seg.app import local_keys

        segmenter = s3seg.Segmenter("embedded", device="cpu")
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
        ):
            client = AsyncClient("http://edge.example", local_keys(settings).mint("ann"), http=http)
            remote = await client.segment(self.PICTURE, "car")
            several = await client.segment(self.PICTURE, ["car", "tree"], threshold=0.2, max_instances=2)
        self._same(remote, segmenter.segment(self.PICTURE, "car"))
        for one, prompt in zip(several, ["car", "tree"], strict=True):
            self._same(one, segmenter.segment(self.PICTURE, prompt, threshold=0.2, max_instances=2))

    def _same(self, remote, local):
        assert len(local) > 0
        assert np.array_equal(remote.image, local.image)
        assert remote.rles == local.rles
        np.testing.assert_allclose(remote.scores, local.scores, atol=1e-5)
        np.testing.assert_allclose(remote.boxes, local.boxes, atol=1e-3)
        same = {"timings": {}, "scores": local.scores, "boxes": local.boxes, "presence": local.presence}
        assert replace(remote, **same) == replace(local, **same)
        assert json.dumps(remote.to_dict())

"""Many requests, requests that are cut off, and large bodies: within the memory of an isolate, and without a hang.

The runtime ends a request with an error if it waits for what another request does. So nothing may wait across requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from tests.cloud.deployment import submit, upload
from tests.cloudflare.conftest import deployed
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio

MIB = 2**20
ISOLATE = 128 * MIB


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def large():
    """A picture of 10 MB."""
    png = encoded()
    return png + os.urandom(MAX_UPLOAD_BYTES - len(png))


@contextlib.contextmanager
def enterprise(worker) -> Iterator[tuple[str, httpx.Client]]:
    """Create a user of the highest tier, with 30 credits."""
    with worker.user() as (user_id, http):
        worker.project.database.execute("select public.operator_ensure(%s, 'enterprise')", (user_id,))
        worker.project.database.execute("select public.operator_adjust(%s, 20)", (user_id,))
        yield user_id, http


def heap(worker) -> int:
    """Return the size of the interpreter's memory in bytes."""
    return int(httpx.get(f"{worker.url}/__test/memory", timeout=30).text)


def uploaded_body(data: bytes) -> tuple[bytes, dict[str, str]]:
    request = httpx.Request("POST", "http://x", files={"file": ("a.png", data, "image/png")})
    return request.read(), {"Content-Type": request.headers["content-type"]}


async def test_thirty_requests_at_once_to_a_cold_worker_are_all_answered(folder, database_server, worker_parts):
    with (
        deployed(folder, database_server, worker_parts, ready="/playground/style.css") as cold,
        contextlib.ExitStack() as users,
    ):
        tokens = [users.enter_context(cold.user())[1].headers["authorization"] for _ in range(30)]
        async with httpx.AsyncClient(base_url=cold.url, timeout=110, limits=httpx.Limits(max_connections=30)) as http:
            asked = [http.get("/api/v1/me", headers={"Authorization": token}) for token in tokens]
            answers = await asyncio.gather(*asked)
        assert Counter(answer.status_code for answer in answers) == {200: 30}
        assert len({answer.json()["data"]["user_id"] for answer in answers}) == 30


async def test_of_many_uploads_at_once_each_is_stored_or_refused_and_none_hangs(worker, large):
    body, headers = uploaded_body(large)
    with contextlib.ExitStack() as users:
        sent = [users.enter_context(enterprise(worker))[1].headers["authorization"] for _ in range(8)]
        async with httpx.AsyncClient(base_url=worker.url, timeout=110) as http:
            asked = [
                http.post("/api/v1/upload", content=body, headers={**headers, "Authorization": token}) for token in sent
            ]
            answers = await asyncio.gather(*asked)
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 2
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 503)
    assert heap(worker) <= ISOLATE
    with enterprise(worker) as (_, http):
        assert upload(http, encoded())


@pytest.mark.parametrize("announced", [True, False], ids=["with its length", "in chunks"])
async def test_a_body_of_99_megabytes_is_refused_and_not_held_in_memory(worker, announced):
    piece = os.urandom(MIB)
    prefix = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + encoded()
    pieces = [prefix, *[piece] * 99, b"\r\n--b--\r\n"]
    before = heap(worker)

    async def body():
        for part in pieces:
            yield part

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if announced:
        headers["Content-Length"] = str(sum(map(len, pieces)))
    with enterprise(worker) as (_, signed_in):
        headers["Authorization"] = signed_in.headers["authorization"]
        async with httpx.AsyncClient(base_url=worker.url, timeout=110) as http:
            answer = await http.post("/api/v1/upload", content=body(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "FILE_TOO_LARGE")
    assert heap(worker) <= max(before, 64 * MIB) + 32 * MIB


async def test_uploads_that_are_cut_off_do_not_keep_their_places(worker):
    with enterprise(worker) as (_, http):
        head = (
            f"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nAuthorization: {http.headers['authorization']}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nabc'
        )
        address = httpx.URL(worker.url)
        for _ in range(6):
            with socket.create_connection((address.host, address.port)) as connection:
                connection.sendall(head.encode())
                await asyncio.sleep(0.5)
        give_up = time.monotonic() + 60
        while (answer := http.post("/api/v1/upload", files={"file": encoded()})).status_code == 503:
            assert time.monotonic() < give_up, "the places were not given back"
            await asyncio.sleep(1)
        assert answer.status_code == 200


async def test_many_event_streams_run_beside_each_other_and_end_with_their_tasks(worker):
    with enterprise(worker) as (_, http):
        image_url = upload(http, encoded())
        tasks = [submit(http, image_url, f"thing {number}") for number in range(10)]
        headers = {"Authorization": http.headers["authorization"]}
        async with httpx.AsyncClient(base_url=worker.url, timeout=60, headers=headers) as streams:
            begun = asyncio.Semaphore(0)

            async def follow(task_id):
                states = []
                async with streams.stream("GET", f"/api/v1/tasks/{task_id}/events") as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            states.append(json.loads(line.removeprefix("data: "))["status"])
                            begun.release()
                return states

            following = [asyncio.ensure_future(follow(task_id)) for task_id in tasks]
            for _ in tasks:
                await begun.acquire()
            for task_id in tasks:
                assert (await streams.post(f"/api/v1/tasks/{task_id}/cancel")).status_code == 200
            assert await asyncio.gather(*following) == [["pending", "error"]] * 10


async def test_streams_that_are_left_give_their_places_back_within_a_minute(worker):
    with enterprise(worker) as (_, http):
        task_id = submit(http, upload(http, encoded()), "car")

        def begin_and_leave() -> int:
            with http.stream("GET", f"/api/v1/tasks/{task_id}/events") as answer:
                return answer.status_code

        statuses = Counter(begin_and_leave() for _ in range(25))  # more than one user may have at a time
        assert set(statuses) <= {200, 503}
        give_up = time.monotonic() + 60
        while begin_and_leave() != 200:
            assert time.monotonic() < give_up, "the places were not given back"
            await asyncio.sleep(1)
        assert http.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 200


async def test_a_stream_outlives_the_thirty_seconds_that_a_worker_has_after_a_response(worker):
    with enterprise(worker) as (_, http):
        task_id = submit(http, upload(http, encoded()), "car")
        with http.stream("GET", f"/api/v1/tasks/{task_id}/events") as answer:
            lines = answer.iter_lines()
            seen = [
                line for _, line in zip(range(9), lines, strict=False)
            ]  # an event, and three comments to keep it alive
            assert seen.count(": keep-alive") == 3
            http.post(f"/api/v1/tasks/{task_id}/cancel")
            assert [json.loads(line[6:])["status"] for line in lines if line.startswith("data: ")] == ["error"]


async def test_polls_of_many_users_at_once_are_each_answered_with_their_own_task(worker):
    with contextlib.ExitStack() as users:
        made = [users.enter_context(enterprise(worker))[1] for _ in range(6)]
        tasks = {http.headers["authorization"]: submit(http, upload(http, encoded()), "car") for http in made}
        async with httpx.AsyncClient(base_url=worker.url, timeout=60) as http:
            asked = [
                http.get(f"/api/v1/tasks/{task_id}", headers={"Authorization": token})
                for token, task_id in tasks.items()
                for _ in range(8)
            ]
            answers = await asyncio.gather(*asked)
        expected = [task_id for task_id in tasks.values() for _ in range(8)]
        assert [answer.json()["data"]["task_id"] for answer in answers] == expected


async def test_a_picture_of_ten_megabytes_is_served_whole(worker, large):
    with enterprise(worker) as (_, http):
        image_url = upload(http, large)
        async with httpx.AsyncClient(timeout=60) as readers:
            answers = await asyncio.gather(*(readers.get(image_url) for _ in range(3)))
        assert all(answer.content == large for answer in answers)


async def test_a_reader_who_leaves_in_the_middle_of_a_picture_disturbs_nobody(worker, large):
    with enterprise(worker) as (_, http):
        image_url = upload(http, large)
        for _ in range(5):
            with httpx.stream("GET", image_url, timeout=60) as answer:
                next(answer.iter_bytes(1000))
        assert httpx.get(image_url, timeout=60).content == large


async def test_the_memory_does_not_grow_with_the_number_of_requests(worker):
    with enterprise(worker) as (_, http):
        image_url = upload(http, encoded())
        async with httpx.AsyncClient(base_url=worker.url, timeout=60) as clients:

            async def hundreds() -> None:
                for path in ("/health", "/api/v1/nothing", image_url):
                    for _ in range(4):
                        await asyncio.gather(*(clients.get(path) for _ in range(20)))

            await hundreds()
            before = heap(worker)
            await hundreds()
        assert heap(worker) - before <= 2 * MIB

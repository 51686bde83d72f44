"""The edge as a process: real sockets, real kills, a real disk that takes no more."""

import asyncio
import io
import os
import random
import resource
import signal
import socket
import sqlite3
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from s3seg.adapters.local_auth import user_id_of
from s3seg.app import Parts, local_keys
from s3seg.app.settings import Settings
from s3seg.client import Client, RetryPolicy
from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from s3seg.tasks.model import TaskStatus
from tests.helpers.attacks import forget_memory_peak, memory_peak_mb, multipart, slow_jpeg
from tests.helpers.pictures import encoded
from tests.helpers.processes import EDGE, WORKER, Process, edge_process, free_port, wait_for
from tests.web.contract_bodies import error_of


def token_for(data, name="ann"):
    return local_keys(Settings(_env_file=None, data_dir=data)).mint(name)


class TestUploadSizes:
    @pytest.fixture(scope="class")
    @classmethod
    def edge(cls, tmp_path_factory):
        data = tmp_path_factory.mktemp("edge")
        with edge_process(data) as (process, url):
            headers = {"Authorization": f"Bearer {token_for(data)}", "Content-Type": "multipart/form-data; boundary=x"}
            with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
                yield process, http

    @pytest.mark.parametrize("chunked", [False, True])
    def test_ten_megabytes_pass_and_a_byte_more_does_not(self, edge, chunked):
        _, http = edge
        png = encoded()
        for size, status in [(MAX_UPLOAD_BYTES, 200), (MAX_UPLOAD_BYTES + 1, 413)]:
            body = multipart(png + bytes(size - len(png)))
            pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
            response = http.post("/api/v1/upload", content=pieces if chunked else body)
            assert response.status_code == status, response.text
            if status == 413:
                assert error_of(response) == (413, "FILE_TOO_LARGE")
            else:
                assert response.json()["data"]["size_bytes"] == MAX_UPLOAD_BYTES

    @pytest.mark.skipif(sys.platform != "linux", reason="reads another process's memory peak")
    def test_forty_megabytes_without_a_length_are_413_and_not_kept(self, edge):
        process, http = edge
        forget_memory_peak(process.pid)
        before = memory_peak_mb(process.pid)

        def forty():
            yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
            for _ in range(640):
                yield bytes(65_536)
            yield b"\r\n--x--\r\n"

        assert error_of(http.post("/api/v1/upload", content=forty())) == (413, "FILE_TOO_LARGE")
        assert memory_peak_mb(process.pid) - before < 25

    def test_a_client_that_sends_expect_is_refused_before_it_sends_the_body(self, edge):
        _, http = edge
        with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as connection:
            connection.sendall(
                b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 999999999\r\n"
                + f"Authorization: {http.headers['authorization']}\r\n".encode()
                + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            )
            answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize("length", ["10", "-1", "1e9", "0x10", "99999999999999999999999"])
    def test_a_wrong_content_length_is_refused_and_does_no_harm(self, edge, length):
        _, http = edge
        with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as connection:
            connection.sendall(
                f"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n".encode()
                + f"Authorization: {http.headers['authorization']}\r\n".encode()
                + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                + multipart(encoded())
            )
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
        assert http.get("/health").status_code == 200

    def test_an_upload_that_breaks_off_leaves_nothing(self, edge):
        _, http = edge
        for _ in range(40):  # more than there are places
            with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as connection:
                connection.sendall(
                    b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
                    + f"Authorization: {http.headers['authorization']}\r\n".encode()
                    + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                )
        assert http.post("/api/v1/upload", content=multipart(encoded())).status_code == 200


def _decoders(pid):
    """The decoding processes of a service."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for children in children for child in children.read_text().split()]
    return [child for child in found if b"s3seg.decoding.child" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_decoding_processes_are_killed_replaced_and_ended_with_the_edge(tmp_path):
    limits = {"S3SEG_DECODE_PROCESSES": "1", "S3SEG_DECODE_DEADLINE_S": "0.5"}
    with edge_process(tmp_path / "data", **limits) as (edge, url):
        headers = {"Authorization": f"Bearer {token_for(tmp_path / 'data')}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:

            def upload(data):
                return http.post("/api/v1/upload", files={"file": ("a", data, "image/png")})

            assert upload(encoded()).status_code == 200
            (first,) = _decoders(edge.pid)
            slow = upload(slow_jpeg())
            assert error_of(slow) == (400, "INVALID_REQUEST")
            assert "takes too long to decode" in slow.json()["error"]["message"]
            assert upload(encoded()).status_code == 200
            (second,) = _decoders(edge.pid)
            assert second != first
            os.kill(second, signal.SIGKILL)
            assert {upload(encoded()).status_code for _ in range(3)} <= {200, 503}
            assert upload(encoded()).status_code == 200
            (last,) = _decoders(edge.pid)
        edge.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in (first, second, last))


class TestBadDisks:
    @pytest.mark.skipif(sys.platform != "linux", reason="limits another process's files")
    def test_a_disk_that_takes_no_more_is_503_until_it_does(self, tmp_path):
        with edge_process(tmp_path / "data") as (process, url):
            headers = {"Authorization": f"Bearer {token_for(tmp_path / 'data')}"}
            with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
                files = {"file": ("a.png", encoded(), "image/png")}
                image_url = http.post("/api/v1/upload", files=files).json()["data"]["image_url"]
                order = {"image_url": image_url, "text_prompt": "cat"}
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
                while http.get("/ready").status_code == 200:
                    time.sleep(0.1)  # the check at start is remembered for a second
                for _ in range(3):
                    for response in (
                        http.post("/api/v1/upload", files=files),
                        http.post("/api/v1/segment", json=order),
                        http.get("/ready"),
                    ):
                        assert error_of(response) == (503, "UNAVAILABLE")
                        assert int(response.headers["retry-after"]) >= 1
                assert http.get("/api/v1/results").json()["data"]["total"] == 0  # reads go on
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                assert http.post("/api/v1/segment", json=order).status_code == 202
                assert http.post("/api/v1/upload", files=files).status_code == 200
                wait_for(url, "/ready")
                assert http.get("/api/v1/me").json()["data"]["credits"] == 9

    def test_a_locked_database_is_503_until_it_is_not(self, tmp_path):
        with edge_process(tmp_path / "data", S3SEG_DATABASE_TIMEOUT_S="0.2") as (_, url):
            headers = {"Authorization": f"Bearer {token_for(tmp_path / 'data')}"}
            with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
                files = {"file": ("a.png", encoded(), "image/png")}
                image_url = http.post("/api/v1/upload", files=files).json()["data"]["image_url"]
                order = {"image_url": image_url, "text_prompt": "cat"}
                other = sqlite3.connect(tmp_path / "data" / "tasks.sqlite3")
                other.execute("BEGIN IMMEDIATE")
                assert error_of(http.post("/api/v1/segment", json=order)) == (503, "UNAVAILABLE")
                assert http.get("/api/v1/results").status_code == 200
                other.rollback()
                other.close()
                assert http.post("/api/v1/segment", json=order).status_code == 202
                assert http.get("/api/v1/me").json()["data"]["credits"] == 9


class _Load:
    """Users who upload and submit all the time, and try again until they know what became of it."""

    def __init__(self, data, url, users):
        self.accepted: dict[str, str] = {}  # idempotency key -> task
        self._clients = [
            Client(url, token_for(data, name), timeout=10, retry_policy=RetryPolicy(retries=100, max_elapsed_s=60))
            for name in users
        ]
        self._over = False
        self._pool = ThreadPoolExecutor(len(users))
        self._running = [self._pool.submit(self._use, client) for client in self._clients]

    def _use(self, client):
        image_url = client.upload(encoded()).image_url
        while not self._over:
            key = str(uuid.uuid4())
            self.accepted[key] = client.submit(
                image_url, random.choice(["cat", ["cat", "dog"]]), idempotency_key=key
            ).task_id
            time.sleep(0.02)

    def wait_for_more(self):
        """Return once another task has been accepted."""
        before, give_up = len(self.accepted), time.monotonic() + 60
        while len(self.accepted) == before:
            assert time.monotonic() < give_up, "no task was accepted"
            time.sleep(0.05)

    def stop(self):
        self._over = True
        try:
            for running in self._running:
                running.result()
        finally:
            self._pool.shutdown()
            for client in self._clients:
                client.close()


def _quick_worker(data, environment):
    return Process(WORKER, log=data / "worker.log", **environment)


def _real_gpu_service(data, environment):
    port = environment["S3SEG_GPU_URL"].rpartition(":")[2]
    return Process(EDGE, "gpu", "--port", port, log=data / "gpu.log", S3SEG_CHECKPOINT="embedded", **environment)


def _kill_at_random(tmp_path, rounds, seed, *, make_worker=_quick_worker, pause=(0.1, 0.8)):
    chance = random.Random(seed)
    data = tmp_path / "data"
    environment = {
        "S3SEG_DATA_DIR": str(data),
        "S3SEG_LEASE_S": "1",
        "S3SEG_POLL_S": "0.05",
        "S3SEG_WELCOME_CREDITS": "100000",
        "S3SEG_MAX_ATTEMPTS": "100",
        "S3SEG_GPU_URL": f"http://127.0.0.1:{free_port()}",
        "API_SECRET_KEY": "a long random value",
    }
    users = ["ann", "bob", "eve"]
    with edge_process(data, **environment) as (edge, url):
        environment |= {"S3SEG_PUBLIC_BASE_URL": f"{url}/files"}
        worker = make_worker(data, environment)
        worker.start()
        try:
            load = _Load(data, url, users)
            try:
                load.wait_for_more()
                for _ in range(rounds):
                    time.sleep(chance.uniform(*pause))
                    for process in chance.choice([(edge,), (worker,), (edge, worker)]):
                        process.kill()
                        process.start()
                wait_for(url)
                load.wait_for_more()
            finally:
                load.stop()
            asyncio.run(_books_balance(data, f"{url}/files", load.accepted, users))
        finally:
            worker.kill()


async def _books_balance(data, public_base, accepted, users):
    settings = Settings(_env_file=None, data_dir=data, public_base_url=public_base, rate_limits="off")
    parts = Parts(settings)
    try:
        tasks = {}
        for name in users:
            caller = await parts.authenticator.authenticate(token_for(data, name))
            mine = await _ended_tasks(parts, caller)
            tasks |= {task.task_id: task for task in mine}
            ledger = await parts.accounts.ledger(caller.user_id)
            account = await parts.accounts.ensure(user_id_of(name))
            assert account.credits == sum(entry.delta for entry in ledger)
            assert account.credits == 100_000 - sum(task.cost for task in mine if task.status == TaskStatus.DONE)
            debits = [entry.task_id for entry in ledger if entry.reason == "segment"]
            assert len(debits) == len(set(debits)) == len(mine)
        assert set(tasks) == set(accepted.values()), "a task was lost, or made twice"
        assert len(accepted) == len(set(accepted.values()))
        assert any(task.status == TaskStatus.DONE for task in tasks.values())
        for task in tasks.values():
            for key in task.object_keys:
                assert await parts.objects.get(key)
        async for info in parts.objects.list("users/"):
            if info.key.endswith(".png"):
                Image.open(io.BytesIO(await parts.objects.get(info.key))).load()  # whole, or not there
    finally:
        await parts.aclose()


async def _ended_tasks(parts, caller):
    """All tasks of a user, once none is live any more."""
    give_up = time.monotonic() + 60
    while True:
        tasks, cursor = [], None
        while True:
            page = await parts.task_store.list_tasks(caller, limit=100, after=cursor)
            tasks += page.tasks
            cursor = page.next_cursor
            if cursor is None:
                break
        if all(task.ended for task in tasks):
            return tasks
        assert time.monotonic() < give_up, "tasks do not end"
        await asyncio.sleep(0.2)


def test_killing_processes_loses_nothing_and_charges_nothing_twice(tmp_path):
    _kill_at_random(tmp_path, rounds=5, seed=16)  # kills the edge, the worker, and both at once


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_killing_processes_a_hundred_times_loses_nothing(tmp_path, seed):
    _kill_at_random(tmp_path, rounds=10, seed=seed)


@pytest.mark.slow
def test_killing_the_edge_and_a_real_network_loses_nothing(tmp_path):
    # long enough for the network to be loaded and to work, now and then
    _kill_at_random(tmp_path, rounds=10, seed=12, make_worker=_real_gpu_service, pause=(0.1, 8.0))


def test_terminating_the_edge_finishes_what_it_has_begun(tmp_path):
    with edge_process(tmp_path / "data") as (edge, url):
        with Client(url, token_for(tmp_path / "data")) as client:
            image_url = client.upload(encoded()).image_url
        with ThreadPoolExecutor(1) as pool:
            headers = {"Authorization": f"Bearer {token_for(tmp_path / 'data')}", "Prefer": "wait=1"}
            waiting = pool.submit(
                httpx.post,
                f"{url}/api/v1/segment",
                json={"image_url": image_url, "text_prompt": "cat"},
                headers=headers,
                timeout=20,
            )
            results = f"{url}/api/v1/results"
            while httpx.get(results, headers=headers).json()["data"]["total"] == 0:  # the task is not accepted yet
                time.sleep(0.01)
            edge.stop()
            assert waiting.result().status_code == 202
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)

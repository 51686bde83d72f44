"""Webhooks from the API to the receiver, whatever is killed meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from s3seg.app import local_keys
from s3seg.app.settings import Settings
from s3seg.client import Client
from s3seg.tasks.limits import Tier
from tests.helpers.pictures import encoded
from tests.helpers.processes import WORKER, Process, edge_process, wait_for


class Receiver:
    """Answers the first attempt of each message with an error, and keeps what it verified."""

    def __init__(self) -> None:
        self.secret = ""
        self.received: dict[str, set[str]] = {}  # by task: ids of the messages about it
        self.seen: set[str] = set()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = Verifier(outer.secret).verify(body, dict(self.headers))
                with outer._lock:
                    fails = self.headers["webhook-id"] not in outer.seen
                    outer.seen.add(self.headers["webhook-id"])
                    if not fails:
                        outer.received.setdefault(message["data"]["task_id"], set()).add(self.headers["webhook-id"])
                self.send_response(500 if fails else 204)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.mark.slow
def test_every_ended_task_is_told_though_edge_and_worker_are_killed(tmp_path: Path, receiver: Receiver) -> None:
    data = tmp_path / "data"
    environment = {"S3SEG_WEBHOOKS_TO_PRIVATE_ADDRESSES": "true", "S3SEG_WELCOME_CREDITS": "1000"}
    with edge_process(data, **environment) as (edge, url):
        token = local_keys(Settings(_env_file=None, data_dir=data)).mint("ann", tier=Tier.ENTERPRISE)  # type: ignore[call-arg]
        authorization = {"Authorization": f"Bearer {token}"}
        made = httpx.post(f"{url}/api/v1/webhooks", headers=authorization, json={"url": receiver.url})
        receiver.secret = made.json()["data"]["secret"]
        with Client(url, token) as client:
            worker = Process(
                WORKER, log=data / "worker.log", S3SEG_DATA_DIR=str(data), S3SEG_LEASE_S="2", S3SEG_RETRY_AFTER_S="0.1"
            )
            worker.start()
            image = client.upload(encoded()).image_url
            tasks: set[str] = set()
            for round_ in range(6):
                tasks |= {client.submit(image, "cat").task_id for _ in range(5)}
                victim = (edge, worker)[round_ % 2]
                time.sleep(0.3)
                victim.kill()
                victim.start()
                wait_for(url)
            give_up = time.monotonic() + 240
            while receiver.received.keys() != tasks:
                assert time.monotonic() < give_up, (
                    f"{len(tasks - receiver.received.keys())} of {len(tasks)} were not told"
                )
                time.sleep(0.2)
            worker.kill()
    assert {len(ids) for ids in receiver.received.values()} == {1}, "repeats have the same id"

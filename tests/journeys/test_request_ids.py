"""One id follows a request through the edge and whichever worker claims its task."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from s3seg.app import local_keys
from s3seg.app.settings import Settings
from tests.helpers.pictures import encoded
from tests.helpers.processes import WORKER, Process, edge_process


def lines_about(log: Path, task_id: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("task_id") == task_id]


def test_lines_of_a_worker_that_nobody_called_have_the_id_of_the_submit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with edge_process(data, S3SEG_DECODE_PROCESSES="0") as (_, url):
        token = local_keys(Settings(_env_file=None, data_dir=data)).mint("ann")  # type: ignore[call-arg]
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as http:
            upload = http.post("/api/v1/upload", files={"file": ("a.png", encoded(), "image/png")}).json()
            body = {"image_url": upload["data"]["image_url"], "text_prompt": "cat"}
            submitted = http.post("/api/v1/segment", json=body)
            task_id, request_id = submitted.json()["data"]["task_id"], submitted.headers["x-request-id"]
            worker = Process(WORKER, log=tmp_path / "worker.log", S3SEG_DATA_DIR=str(data))
            worker.start()
            try:
                give_up = time.monotonic() + 30
                while not (found := lines_about(tmp_path / "worker.log", task_id)):
                    assert time.monotonic() < give_up
                    time.sleep(0.05)
            finally:
                worker.kill()
    assert {line["request_id"] for line in found} == {request_id}
    assert request_id in {line["request_id"] for line in lines_about(data / "edge.log", task_id)}

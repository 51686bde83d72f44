"""The command line against a service."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.pictures import encoded
from tests.helpers.processes import WORKER, Process, edge_process
from tests.journeys.test_edge_processes import token_for


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    data = tmp_path_factory.mktemp("service") / "data"
    settings = {"S3SEG_DATA_DIR": str(data), "S3SEG_POLL_S": "0.05"}
    with edge_process(data) as (_, url):
        worker = Process(WORKER, log=data / "worker.log", **settings, S3SEG_PUBLIC_BASE_URL=f"{url}/files")
        worker.start()
        try:
            yield url, token_for(data)
        finally:
            worker.kill()


def segment(tmp_path, *arguments, **environment):
    """Run ``s3seg segment`` where PyTorch cannot be imported."""
    (tmp_path / "torch.py").write_text("raise ImportError('not on this machine')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "s3seg", "segment", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_pictures_are_segmented_by_the_service_without_local_pytorch(service, tmp_path):
    url, token = service
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded())
    done = segment(tmp_path, "a.png", "b.png", "cat", "-p", "dog", "--url", url, "--jsonl", S3SEG_TOKEN=token)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["source"], line["prompt"]) for line in lines] == [
        (picture, prompt) for picture in ("a.png", "b.png") for prompt in ("cat", "dog")
    ]
    assert all(len(line["instances"]) == 1 for line in lines)
    assert url in done.stderr


def test_the_service_looks_into_tiles(service, tmp_path):
    url, token = service
    (tmp_path / "a.png").write_bytes(encoded())
    done = segment(tmp_path, "a.png", "cat", "--url", url, "--tile", "32", "--jsonl", S3SEG_TOKEN=token)
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["instances"][0]["score"] == pytest.approx(0.8)  # of the worker for what has tiles


def test_a_picture_that_fails_does_not_stop_the_others(service, tmp_path):
    url, token = service
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(encoded())
    done = segment(tmp_path, "a.png", "b.png", "cat", "--url", url, "--token", token, "--jsonl")
    assert done.returncode == 3
    assert json.loads(done.stdout)["source"] == "b.png"
    assert "a.png" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--token", "wrong"], "token"),
        (["--device", "cpu"], "service"),
        (["--image-size", "112"], "service"),
        (["--box", "1,1,3,3"], "text prompts and points"),
    ],
)
def test_an_error_of_the_whole_run_is_reported_once(service, tmp_path, options, said):
    url, token = service
    (tmp_path / "a.png").write_bytes(encoded())
    done = segment(tmp_path, "a.png", "cat", "--url", url, *options, S3SEG_TOKEN=token)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr

"""The page's own JavaScript, run by Node and by a browser against a real edge with a worker that needs no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3seg.adapters.local_auth import user_id_of
from s3seg.app import Parts, local_keys
from s3seg.app.settings import Settings

if sys.platform != "win32":
    from tests.cloud.parts.downloads import MissingPartError, node
    from tests.helpers.processes import EDGE, WORKER, Process, edge_process, free_port, wait_for
    from tests.web.playground.browsing import browse  # noqa: F401  a fixture
else:  # the parts that the tests fetch are not there
    collect_ignore_glob = ["test_*.py"]

FILES = Path(__file__).parents[3] / "src" / "s3seg" / "web" / "playground"

RunNode = Callable[..., Any]


@pytest.fixture(scope="session")
def run_node(tmp_path_factory: pytest.TempPathFactory) -> RunNode:
    """Runs code that imports the page's modules, with `input` as it is; gives what the code hands to `print`."""
    folder = tmp_path_factory.mktemp("modules")
    for module in FILES.glob("*.js"):
        shutil.copy(module, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    try:
        program = node()
    except MissingPartError as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Node.js: {err}")

    def run(code: str, value: Any = None) -> Any:
        script = folder / "main.js"
        script.write_text(
            'import { readFileSync } from "node:fs";\n'
            'const input = JSON.parse(readFileSync(0, "utf8"));\n'
            "const print = (value) => console.log(JSON.stringify(value));\n" + code
        )
        done = subprocess.run(
            [program, script], input=json.dumps(value), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


class Service:
    """An edge and a worker as processes."""

    def __init__(self, data: Path, url: str) -> None:
        self.url = url
        self._settings = Settings(_env_file=None, data_dir=data)  # type: ignore[call-arg]

    @property
    def home(self) -> str:
        return f"{self.url}/"

    @property
    def public_base(self) -> str:
        return f"{self.url}/files"

    def token(self, name: str = "ann") -> str:
        return local_keys(self._settings).mint(name)

    async def credits(self, name: str) -> int:
        parts = Parts(self._settings)
        try:
            return (await parts.accounts.ensure(user_id_of(name))).credits
        finally:
            await parts.aclose()


@pytest.fixture(scope="module")
def idle_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Accepts tasks under the contract's limits, and nobody works on them."""
    data = tmp_path_factory.mktemp("idle") / "data"
    with running_edge(data, S3SEG_RATE_LIMITS="contract") as (_, url):
        yield Service(data, url)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Finds a square in every picture, with a score of 0.9."""
    data = tmp_path_factory.mktemp("working") / "data"
    with running_edge(data) as (_, url):
        environment = {"S3SEG_DATA_DIR": str(data), "S3SEG_POLL_S": "0.05", "S3SEG_PUBLIC_BASE_URL": f"{url}/files"}
        worker = Process(WORKER, log=data / "worker.log", **environment)
        worker.start()
        try:
            yield Service(data, url)
        finally:
            worker.kill()


@pytest.fixture(scope="module")
def real_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """`s3seg serve` with a checkpoint that takes words, boxes and clicks; and the folder of the checkpoint."""
    from tests.helpers.clickable import write_clickable_checkpoint

    folder = tmp_path_factory.mktemp("real")
    checkpoint = write_clickable_checkpoint(folder / "checkpoint")
    (data := folder / "data").mkdir()
    port = free_port()
    environment = {
        "S3SEG_DATA_DIR": str(data),
        "S3SEG_RATE_LIMITS": "off",
        "S3SEG_WELCOME_CREDITS": "100",
        "S3SEG_CHECKPOINT": str(checkpoint),
    }
    everything = Process(EDGE, "--port", str(port), log=data / "serve.log", **environment)
    everything.start()
    try:
        wait_for(url := f"http://127.0.0.1:{port}")
        yield Service(data, url), checkpoint
    finally:
        everything.stop()


def running_edge(data: Path, **environment: str) -> Any:
    return edge_process(data, **environment)

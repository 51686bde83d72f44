"""A Supabase project, and the edge as a Worker in front of it, both once for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.platform == "linux":
    from tests.cloud.conftest import database_server, folder, parts, s3, supabase  # noqa: F401 - fixtures of theirs
    from tests.cloud.deployment import Deployment, service
    from tests.cloud.parts.downloads import MissingPartError
    from tests.cloud.parts.gateway import PUBLISHABLE_KEY, SECRET_KEY
    from tests.cloud.parts.processes import free_ports
    from tests.cloudflare.runtime import Tools, build, make_project, run_worker, tools
    from tests.cloudflare.tokens import ManyKeys
else:
    collect_ignore_glob = ["test_*.py"]

GPU_KEY = "the key between edge and gpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as slow: the runtime takes ten seconds to start."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)


@dataclass(frozen=True)
class WorkerParts:
    """What Workers are made of.

    Attributes:
        tools: Programs from npm.
        modules: The folder that build.py makes.
        said: What build.py printed.
    """

    tools: Tools
    modules: Path
    said: str


@pytest.fixture(scope="session")
def worker_parts(tmp_path_factory: pytest.TempPathFactory) -> WorkerParts:
    """Find the tools and build the Worker."""
    folder = tmp_path_factory.mktemp("workers")
    try:
        found = tools(folder)
    except MissingPartError as err:
        pytest.skip(f"a part is not available: {err}")
    said = build(folder / "python_modules")
    return WorkerParts(found, folder / "python_modules", said)


@contextmanager
def deployed(
    folder: Path,
    database_server,
    worker_parts: WorkerParts,
    *,
    ready: str = "/health",
    secrets: Mapping[str, str] | None = None,
    **variables: str,
) -> Iterator[Deployment]:
    """Run a new project with a Worker in front of it, and no gpu service yet."""
    port, gpu_port = free_ports(2)
    url, gpu_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{gpu_port}"
    folder = folder / f"worker-{port}"
    folder.mkdir()
    with supabase(folder, database_server, public_base=f"{url}/files", issuer=ManyKeys()) as project:
        settings = {
            "S3SEG_PUBLIC_BASE_URL": f"{url}/files",
            "S3SEG_R2_PUBLIC": "false",
            "S3SEG_SUPABASE_URL": project.gateway.url,
            "S3SEG_SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE_KEY,
            "S3SEG_GPU_URL": gpu_url,
            "API_SECRET_KEY": GPU_KEY,
            **variables,
        }
        made = make_project(folder / "project", worker_parts.modules, settings, secrets=secrets)
        with run_worker(made, worker_parts.tools, port, ready=ready) as server:
            yield Deployment(project, url, gpu_url, folder, f"{url}/files", server)
        log = (made / "worker.log").read_text()
        # what the runtime writes when it ends a request that waits for what another one does
        assert "hung" not in log
        assert "different request" not in log


@pytest.fixture(scope="session")
def worker(folder, database_server, worker_parts) -> Iterator[Deployment]:
    """A Worker that is warm."""
    with deployed(folder, database_server, worker_parts) as made:
        yield made


@pytest.fixture
def gpu(worker) -> Iterator[None]:
    """The gpu service, which reads and stores objects through the Worker."""
    settings = {
        "S3SEG_DATA_DIR": str(worker.folder),
        "S3SEG_PUBLIC_BASE_URL": worker.public_base,
        "S3SEG_OBJECT_STORE": "tests.cloudflare.remote_objects:from_settings",
        "S3SEG_TASK_STORE": "supabase",
        "S3SEG_SUPABASE_URL": worker.project.gateway.url,
        "S3SEG_SUPABASE_SECRET_KEY": SECRET_KEY,
        "API_SECRET_KEY": GPU_KEY,
        "S3SEG_POLL_S": "60",  # so that only the Worker's call can wake it in time
    }
    with service("gpu", worker.gpu_url, settings, worker.folder):
        yield

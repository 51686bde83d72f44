"""Both services as processes on real servers, with helpers for users and requests."""

from __future__ import annotations

import os
import secrets
import sys
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.cloud.conftest import Project, supabase
from tests.cloud.parts.gateway import PUBLISHABLE_KEY, SECRET_KEY
from tests.cloud.parts.processes import Server, free_ports, running
from tests.cloud.parts.seaweed import ACCESS_KEY, BUCKET, PUBLIC_BUCKET
from tests.cloud.parts.seaweed import SECRET_KEY as S3_SECRET

COMMAND = "from s3seg.commands.serve import app; app()"


@dataclass(frozen=True)
class Deployment:
    """A running edge, perhaps with a GPU service, on a Supabase project."""

    project: Project
    url: str
    gpu_url: str
    folder: Path
    public_base: str
    edge: Server

    @contextmanager
    def user(self, *, credits=None, **claims):
        """Create a user; yield their id and an HTTP client of the edge with their token."""
        user_id = str(uuid.uuid4())
        self.project.sign_up(user_id)
        token = self.project.issuer.user_token(user_id, **claims)
        if credits is not None:
            self.project.database.execute("select public.operator_adjust(%s, %s)", (user_id, credits - 10))
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
            yield user_id, http


@contextmanager
def deploy(folder, database_server, s3, *, public, gpu=True):
    """Run a new project with an edge, and with a GPU service unless ``gpu`` is False."""
    edge_port, gpu_port = free_ports(2)
    url, gpu_url = f"http://127.0.0.1:{edge_port}", f"http://127.0.0.1:{gpu_port}"
    public_base = f"{s3.endpoint}/{PUBLIC_BUCKET}" if public else f"{url}/files"
    folder = folder / secrets.token_hex(4)
    folder.mkdir()
    with supabase(folder, database_server, public_base=public_base) as project:
        both = {
            "S3SEG_DATA_DIR": str(folder),
            "S3SEG_DTYPE": "float32",  # results as in this process
            "S3SEG_PUBLIC_BASE_URL": public_base,
            "S3SEG_OBJECT_STORE": "r2",
            "S3SEG_R2_ENDPOINT_URL": s3.endpoint,
            "S3SEG_R2_BUCKET": PUBLIC_BUCKET if public else BUCKET,
            "S3SEG_R2_PUBLIC": str(public),
            "S3SEG_R2_ACCESS_KEY_ID": ACCESS_KEY,
            "S3SEG_R2_SECRET_ACCESS_KEY": S3_SECRET,
            "S3SEG_TASK_STORE": "supabase",
            "S3SEG_SUPABASE_URL": project.gateway.url,
            "API_SECRET_KEY": "the key between edge and gpu",
        }
        for_edge = {
            **both,
            "S3SEG_AUTHENTICATOR": "supabase",
            "S3SEG_SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE_KEY,
            "S3SEG_GPU_URL": gpu_url,
        }
        for_gpu = {**both, "S3SEG_SUPABASE_SECRET_KEY": SECRET_KEY}
        with ExitStack() as services:
            if gpu:
                services.enter_context(service("gpu", gpu_url, for_gpu, folder))
            edge = services.enter_context(service("edge", url, for_edge, folder))
            yield Deployment(project, url, gpu_url, folder, public_base, edge)


def service(name, url, environment, folder):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("S3SEG_", "API_"))}
    path = os.pathsep.join(word for word in sys.path if word)
    return running(
        Server(
            name,
            [sys.executable, "-c", COMMAND, name, "--port", url.rpartition(":")[2]],
            log=folder / f"{name}.log",
            ready=lambda: httpx.get(f"{url}/ready", timeout=10).raise_for_status(),
            env={**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "S3SEG_DTYPE": "float32", **environment},
            cwd=folder,
        )
    )


def upload(http, picture):
    """Upload an image and return its URL."""
    answer = http.post("/api/v1/upload", files={"file": ("street.png", picture, "image/png")})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["image_url"]


def submit(http, image_url, *prompts):
    """Submit a task and return its id."""
    answer = http.post("/api/v1/segment", json={"image_url": image_url, "text_prompts": prompts})
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]["task_id"]


def finished(http, task_id):
    """Wait until a task has ended, and return it."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        task = http.get(f"/api/v1/tasks/{task_id}").json()["data"]
        if task["status"] in ("done", "error"):
            return task
        time.sleep(0.1)
    raise AssertionError("the task did not end")

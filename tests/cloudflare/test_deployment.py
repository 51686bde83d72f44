"""The build, and what wrangler would send to Cloudflare."""

from __future__ import annotations

import re
import shutil
import subprocess

import httpx

from tests.cloud.parts.processes import free_ports
from tests.cloudflare.runtime import DEPLOY, configured, make_project, run_worker


def test_the_build_reports_its_size_and_is_below_the_ceiling(worker_parts):
    total, compressed = map(float, re.search(r"([\d.]+) MB, ([\d.]+) MB compressed", worker_parts.said).groups())
    assert 1 < compressed < 5 < total < 20


def test_the_build_has_no_file_of_the_rooms_that_a_worker_does_not_need(worker_parts):
    rooms = {path.name for path in (worker_parts.modules / "s3seg").iterdir()}
    assert rooms == {"__init__.py", "errors.py", "adapters", "api", "app", "edge", "tasks", "web"}
    packages = {path.name for path in worker_parts.modules.iterdir()}
    assert packages.isdisjoint({"torch", "numpy", "PIL", "cryptography", "httptools", "uvicorn", "boto3"})


def test_wrangler_accepts_the_deployment_as_it_is(tmp_path, worker_parts):
    shutil.copytree(DEPLOY / "src", tmp_path / "src")
    shutil.copyfile(DEPLOY / "wrangler.jsonc", tmp_path / "wrangler.jsonc")
    (tmp_path / "python_modules").symlink_to(worker_parts.modules)
    done = subprocess.run(
        worker_parts.tools.command("deploy", "--dry-run", "--outdir", str(tmp_path / "out")),
        cwd=tmp_path,
        env=worker_parts.tools.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--dry-run: exiting now" in done.stdout
    assert f"env.{configured()['r2_buckets'][0]['binding']}" in done.stdout
    compressed = float(re.search(r"Total Upload: [\d.]+ KiB / gzip: ([\d.]+) KiB", done.stdout)[1])
    assert compressed < 5_000


def test_a_worker_without_its_settings_answers_in_the_envelope_and_logs_what_is_missing(tmp_path, worker_parts):
    (port,) = free_ports(1)
    project = make_project(tmp_path / "project", worker_parts.modules, {"S3SEG_SUPABASE_URL": "https://x.supabase.co"})
    with run_worker(project, worker_parts.tools, port, ready="/__test/memory"):
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/me", timeout=60)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "INTERNAL_ERROR"
    assert answer.json()["meta"]["request_id"] == answer.headers["x-request-id"]
    assert "PUBLISHABLE" not in answer.text
    assert "the Worker needs S3SEG_SUPABASE_PUBLISHABLE_KEY, which is not set" in (project / "worker.log").read_text()

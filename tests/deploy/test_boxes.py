"""Files for rented boxes: what can be run without the box is run."""

from __future__ import annotations

import base64
import configparser
import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.helpers.pictures import encoded

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PARK = ROOT / "examples" / "pictures" / "park.png"


# ---- RunPod


@pytest.fixture(scope="module")
def runpod_handler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("handler", DEPLOY / "runpod" / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_job_is_answered_with_a_result_for_each_prompt(
    runpod_handler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    picture = base64.b64encode(PARK.read_bytes()).decode()
    answer = runpod_handler.handler({"input": {"image": picture, "prompts": ["tree", "sun"]}})
    trees, suns = answer["results"]
    assert [result["prompt"] for result in (trees, suns)] == ["tree", "sun"]
    assert len(trees["instances"]) > 1
    assert len(suns["instances"]) == 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "base64"),
        ({"image": "!!!", "prompts": ["cat"]}, "not base64"),
        ({"image": base64.b64encode(b"no picture").decode(), "prompts": ["cat"]}, "not"),
        ({"image": "A" * 14_000_000, "prompts": ["cat"]}, "10 MB at most"),
        ({"image": base64.b64encode(encoded()).decode(), "prompts": "cat"}, "list of 1 to 16"),
        ({"image": base64.b64encode(encoded()).decode(), "prompts": ["x"] * 17}, "list of 1 to 16"),
        ({"image": base64.b64encode(encoded()).decode(), "prompts": ["cat"], "threshold": "high"}, "high"),
    ],
)
def test_a_wrong_job_is_told_what_is_wrong(
    runpod_handler: ModuleType, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object], expected: str
) -> None:
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    assert expected in runpod_handler.handler({"input": asked})["error"]


# ---- Vast.ai


@pytest.fixture
def box(tmp_path: Path) -> dict[str, str]:
    """A box whose s3seg notes how it was called; the first worker dies at once, the next ones until a signal comes."""
    program = tmp_path / "home" / "venv" / "bin" / "s3seg"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"""#!/bin/bash
settings="checkpoint=$S3SEG_CHECKPOINT task_store=${{S3SEG_TASK_STORE:-}} other=${{OTHER:-}} weights=$HF_HOME"
echo "$* $settings" >> {tmp_path}/calls
[ "$1" = worker ] || exit 0
[ -e {tmp_path}/second ] || {{ touch {tmp_path}/second; exit 1; }}
trap 'echo drained >> {tmp_path}/calls; exit 0' TERM
touch {tmp_path}/working
while :; do sleep 0.02; done
"""
    )
    program.chmod(0o755)
    (tmp_path / "environ").write_bytes(b"S3SEG_TASK_STORE=supabase\0OTHER=not ours\0S3SEG_X=a b\nc\0")
    return {
        "PATH": os.environ["PATH"],
        "S3SEG_HOME": str(tmp_path / "home"),
        "S3SEG_LOG": str(tmp_path / "log"),
        "S3SEG_ENVIRONMENT": str(tmp_path / "environ"),
        "S3SEG_RESTART_PAUSE": "0.01",
    }


def test_a_box_checks_its_settings_and_keeps_a_worker_that_drains(tmp_path: Path, box: dict[str, str]) -> None:
    started = subprocess.run(
        [DEPLOY / "vast" / "onstart.sh"], env=box, capture_output=True, text=True, check=True, timeout=30
    )
    assert "a worker runs" in started.stdout
    _wait_until(lambda: (tmp_path / "working").exists())
    os.kill(int((tmp_path / "home" / "worker.pid").read_text()), signal.SIGTERM)
    _wait_until(lambda: "drained" in (tmp_path / "calls").read_text())
    settings = f"checkpoint=litetext task_store=supabase other= weights={tmp_path}/home/weights"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"doctor --services {settings}",
        f"worker --pull {settings}",
        f"worker --pull {settings}",
        "drained",
    ]


def _wait_until(condition) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


# ---- Docker and systemd


def test_images_copy_what_exists_and_run_as_a_user() -> None:
    for path in (DEPLOY / "docker").glob("*.Dockerfile"):
        lines = path.read_text().splitlines()
        copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
        assert len(copied) >= 7
        assert all((ROOT / name).exists() for name in copied), path
        assert any(line == "USER 10001" for line in lines)
        assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_the_compose_file_builds_the_images_and_shares_the_data() -> None:
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    for name in ("edge", "gpu"):
        build = services[name]["build"]
        assert (DEPLOY / "docker" / build["context"] / build["dockerfile"]).exists()
        assert "data:/data" in services[name]["volumes"]
        assert {"API_SECRET_KEY", "S3SEG_PUBLIC_BASE_URL"} <= services[name]["environment"].keys()
        assert services[name]["env_file"] == [{"path": f"{name}.env", "required": False}]
    assert "ports" not in services["gpu"], "only the proxy is reached from outside"
    assert "ports" not in services["edge"]


@pytest.mark.parametrize("name", ["s3seg-edge", "s3seg-gpu"])
def test_units_give_services_time_to_drain_and_keep_data_private(name: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd" / f"{name}.service")
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) > 30, "S3SEG_DRAIN_S"
    assert (service["UMask"], service["StateDirectoryMode"], service["Restart"]) == ("0077", "0700", "always")

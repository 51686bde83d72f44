"""A real Label Studio with a project, asked for predictions: `make test-integrations`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from s3seg.inference.segmenter import Segmenter
from tests.helpers.inference_system import PICTURES
from tests.helpers.processes import free_port, wait_for
from tests.integrations.running import KEY, same_mask, service
from tests.results.test_brush_rle import decode_brush

LABEL_STUDIO = os.environ.get("LABEL_STUDIO")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(LABEL_STUDIO is None, reason="run `make test-integrations`"),
]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">
<Label value="tree" background="green"/><Label value="sky" hint="cloud" background="blue"/></BrushLabels></View>"""
DECODE = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
rle = json.load(sys.stdin)
sys.stdout.buffer.write(decode_rle(rle).reshape(640, 800, 4)[:, :, 3].tobytes())
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label-studio")
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE")},
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": "ann@example.com",
        "LABEL_STUDIO_PASSWORD": "a long password",
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    command = [str(Path(LABEL_STUDIO).absolute()), "start", "--no-browser", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, "/health", seconds=240)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def api(studio):
    with httpx.Client(base_url=studio, headers={"Authorization": f"Token {TOKEN}"}, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def personal_token(api):
    """A personal access token, as people make one on their account page."""
    settings = api.post("/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
    assert settings.is_success, settings.text
    answer = api.post("/api/token/")
    assert answer.is_success, answer.text
    return answer.json()["token"]


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_predictions_of_a_project_are_the_masks_of_the_segmenter(studio, api, personal_token, kind, tmp_path):
    project = api.post("/api/projects", json={"title": kind, "label_config": CONFIG}).json()
    with (PICTURES / "park.png").open("rb") as picture:
        imported = api.post(f"/api/projects/{project['id']}/import", files={"file": ("park.png", picture)})
    assert imported.is_success, imported.text
    key = TOKEN if kind == "legacy" else personal_token
    with service(tmp_path, "label-studio", S3SEG_LABEL_STUDIO_URL=studio, S3SEG_LABEL_STUDIO_API_KEY=key) as s3seg:
        backend = api.post(
            "/api/ml",
            json={
                "project": project["id"],
                "url": f"{s3seg}/label-studio",
                "title": "s3seg",
                "auth_method": "BASIC_AUTH",
                "basic_auth_user": "s3seg",
                "basic_auth_pass": KEY,
            },
        )
        assert backend.is_success, backend.text
        assert backend.json()["state"] == "CO", backend.text  # connected
        action = api.post(
            "/api/dm/actions",
            params={"id": "retrieve_tasks_predictions", "project": project["id"]},
            json={"selectedItems": {"all": True, "excluded": []}},
        )
        assert action.is_success, action.text
        (task,) = api.get("/api/tasks", params={"project": project["id"], "fields": "all"}).json()["tasks"]
        log = (tmp_path / "service.log").read_text()
    (prediction,) = task["predictions"]
    trees, clouds = Segmenter("embedded").segment(PICTURES / "park.png", ["tree", "cloud"])
    regions = prediction["result"]
    assert [region["value"]["brushlabels"] for region in regions] == [["tree"], ["tree"], ["sky"]]
    for region, instance in zip(regions, [*trees, *clouds], strict=True):
        theirs = subprocess.run(
            [Path(LABEL_STUDIO).absolute().parent / "python", "-c", DECODE],
            input=str(region["value"]["rle"]).encode(),
            capture_output=True,
            check=True,
        ).stdout
        mask = np.frombuffer(theirs, np.uint8).reshape(640, 800) == 255
        assert np.array_equal(mask, decode_brush(region["value"]["rle"], (640, 800))[:, :, 3] == 255)
        assert same_mask(mask, instance.mask)
    assert prediction["model_version"].startswith("s3seg-embedded")
    assert key not in log


def test_the_example_makes_a_project_with_pictures_and_masks(studio, api, personal_token, tmp_path):
    program = PICTURES.parent / "label_studio" / "make_project.py"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "S3SEG_CHECKPOINT": "embedded",
        "LABEL_STUDIO_URL": studio,
        "LABEL_STUDIO_TOKEN": personal_token,
    }
    command = [sys.executable, str(program), str(PICTURES), "trees and clouds", "tree", "cloud"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    project = int(done.stdout.split()[-1].rpartition("/")[2])
    tasks = api.get("/api/tasks", params={"project": project, "fields": "all"}).json()["tasks"]
    found = {task["file_upload"].rpartition("-")[2]: task["predictions"][0]["result"] for task in tasks}
    labels = {name: [region["value"]["brushlabels"] for region in regions] for name, regions in found.items()}
    assert labels["park.png"] == [["tree"], ["tree"], ["cloud"]]
    assert labels["shapes.png"] == []
    mask = decode_brush(found["park.png"][0]["value"]["rle"], (640, 800))[:, :, 3] == 255
    assert same_mask(mask, Segmenter("embedded").segment(PICTURES / "park.png", "tree")[0].mask)

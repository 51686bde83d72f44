"""The two distributions: s3seg-slim without what segments, and s3seg, which requires it with everything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from s3seg import __version__
from s3seg.app import edge_app
from s3seg.app.settings import Settings
from s3seg.errors import ConfigurationError
from tests.edge.test_imports import START

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("torch", "numpy", "PIL", "safetensors", "tokenizers", "huggingface_hub", "hotcoco")


@pytest.fixture(scope="module")
def packaging():
    spec = importlib.util.spec_from_file_location("build_distributions", ROOT / "packaging" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_slim_with_its_extra_requires_what_a_checkout_requires(packaging):
    slim, project = packaging.slim(), packaging.described()["project"]
    assert sorted(slim["dependencies"] + slim["extras"]["model"]) == sorted(project["dependencies"])
    assert {packaging.name_of(one) for one in slim["extras"]["model"]} == set(packaging.model_packages())
    assert not {packaging.name_of(one) for one in slim["dependencies"]} & {"torch", "numpy", "pillow"}
    assert slim["extras"].items() >= project["optional-dependencies"].items()


def test_the_full_one_requires_slim_of_the_same_version(packaging):
    full = packaging.full()
    assert full["dependencies"] == [f"s3seg-slim[model]=={__version__}"]
    assert set(full["extras"]) == set(packaging.described()["project"]["optional-dependencies"])


@pytest.mark.slow
def test_the_wheels_have_every_module_once(packaging, tmp_path):
    [slim], [full] = (packaging.build(one, tmp_path) for one in (packaging.slim(), packaging.full()))
    modules = {name for name in zipfile.ZipFile(slim).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", "src/s3seg"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert modules >= {name.removeprefix("src/") for name in tracked.stdout.splitlines()}
    assert "s3seg/migrations" in {name.rpartition("/")[0] for name in modules}
    assert [name for name in zipfile.ZipFile(full).namelist() if ".dist-info/" not in name] == []
    for wheel, description in ((slim, packaging.slim()), (full, packaging.full())):
        archive = zipfile.ZipFile(wheel)
        (path,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
        required = [one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one]
        assert sorted(required) == sorted(description["dependencies"])
        assert metadata["Version"] == __version__


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START.format(heavy=LEFT_OUT, then=code)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_these_packages_segmenting_says_what_to_install():
    done = run("sys.argv = ['s3seg', 'segment', 'a.png', 'cat']\nfrom s3seg.cli import main\nmain()")
    assert done.returncode == 1
    assert done.stderr.startswith("error: this needs the package ")
    assert done.stderr.endswith("which s3seg-slim leaves out; run: pip install s3seg\n")


@pytest.mark.parametrize("command", ["serve edge", "token", "admin credits", "db migrate", "doctor", "models list"])
def test_without_these_packages_every_command_has_its_help(command):
    done = run(f"sys.argv = ['s3seg', *{command.split()!r}, '--help']\nfrom s3seg.cli import main\nmain()")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_these_packages_the_edge_of_the_settings_takes_uploads():
    done = run(f"""
import asyncio, tempfile, httpx
from s3seg.app import Settings, edge_app, local_keys
PNG = bytes.fromhex({png().hex()!r})

async def main():
    settings = Settings(data_dir=tempfile.mkdtemp(), upload_check="header", reap_every_s=0, gc_every_h=0)
    app = edge_app(settings)
    token = local_keys(settings).mint("ann")
    headers = {{"Authorization": f"Bearer {{token}}"}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as http:
        answer = await http.post("/api/v1/upload", files={{"file": PNG}}, headers=headers)
    print(answer.status_code, answer.json()["data"]["content_type"])

asyncio.run(main())
""")
    assert (done.stderr, done.stdout.split()) == ("", ["200", "image/png"])


CALL = """
import httpx, json, sys
sys.modules.update(dict.fromkeys({missing!r}))  # as if they were not installed
from s3seg import Client

ID = "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11"
AT = "2026-01-01T00:00:00Z"
DONE = {{"status": "done", "created_at": AT, "updated_at": AT}}
META = {{"request_id": ID, "timestamp": AT}}
ANSWERS = {{
    "/health": {{"direct_uploads": False}},
    "/api/v1/upload": {{"image_id": ID, "image_url": "i.png", "size_bytes": 1, "content_type": "image/png"}},
    "/api/v1/segment": {{"task_id": ID, "status": "pending"}},
    f"/api/v1/tasks/{{ID}}": {{"task_id": ID, **DONE}},
    f"/api/v1/results/{{ID}}": {{
        "id": ID, "project_id": None, "source_image_url": "", "mask_image_url": "", "text_prompt": "cat", "labels": [],
        "metadata": {{"instances_url": "http://bucket/instances.json"}}, **DONE,
    }},
}}

def answer(request):
    print(request.url.path)
    if request.url.host == "bucket":
        return httpx.Response(200, content=bytes.fromhex({instances!r}))
    body = {{"success": True, "data": ANSWERS[request.url.path], "error": None, "meta": META}}
    return httpx.Response(200, json=body)

with Client("http://edge", "token", http=httpx.Client(transport=httpx.MockTransport(answer))) as client:
    found = client.segment(bytes.fromhex({png!r}), "cat")
    print(found.masks.sum(), found.scores.tolist())
"""


def call_without(*missing: str) -> subprocess.CompletedProcess[str]:
    import numpy as np

    from s3seg import images
    from s3seg.results import instances_file, masks
    from s3seg.results.model_info import ModelInfo
    from s3seg.results.segmentation import Segmentation

    mask = np.zeros(images.load(png()).pixels.shape[:2], dtype=bool)
    mask[1:3, 1:3] = True
    result = Segmentation(
        prompt="cat",
        size=mask.shape,
        rles=[masks.encode(mask)],
        boxes=[[1, 1, 3, 3]],
        scores=[0.75],
        presence=1.0,
        threshold=0.5,
        model=ModelInfo(name="SAM3", version="1", device="cpu", dtype="float32"),
        timings={},
    )
    instances = instances_file.write([result], threshold=0.5)
    code = CALL.format(missing=missing, png=png().hex(), instances=instances.hex())
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_client_of_slim_with_images_reads_masks(packaging):
    needed = {packaging.name_of(one) for one in packaging.slim()["extras"]["images"]}
    imported = {"pillow": "PIL", "huggingface-hub": "huggingface_hub"}
    missing = {imported.get(name, name) for name in set(packaging.model_packages()) - needed}
    assert "torch" in missing
    done = call_without(*missing)
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "4 [0.75]")


@pytest.mark.parametrize("package", ["numpy", "PIL", "hotcoco"])
def test_a_client_without_images_says_what_to_install_before_anything_is_sent(package):
    done = call_without(package)
    assert done.stdout == ""
    error = f"ConfigurationError: reading pictures and masks needs the package {package}; "
    assert done.stderr.endswith(f"{error}run: pip install 's3seg-slim[images]'\n")


def png() -> bytes:
    from tests.helpers.pictures import encoded

    return encoded()


def test_an_edge_that_cannot_decode_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("s3seg.app.services.find_spec", lambda name: None)
    with pytest.raises(
        ConfigurationError, match=r"S3SEG_UPLOAD_CHECK=header, or run: pip install 's3seg-slim\[images\]'"
    ):
        edge_app(Settings(data_dir=tmp_path))
    edge_app(Settings(data_dir=tmp_path, upload_check="header"))

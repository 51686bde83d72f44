"""The example programs do what they say, run as their readers run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

import s3seg
from tests.helpers.processes import Process, free_port, wait_for
from tests.results.test_brush_rle import decode_brush

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PICTURES = EXAMPLES / "pictures"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, "S3SEG_CHECKPOINT": "embedded", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_client_draws_what_a_service_finds_in_a_folder(tmp_path):
    port = str(free_port())
    settings = {"S3SEG_DATA_DIR": str(tmp_path / "data"), "S3SEG_CHECKPOINT": "embedded"}
    code = "from s3seg.cli import main; main()"
    service = Process(code, "serve", "--port", port, "--print-token", log=tmp_path / "log", **settings)
    service.start()
    try:
        wait_for(f"http://127.0.0.1:{port}")
        printed = dict(re.findall(r"^export (S3SEG_\w+)=(\S+)", service.log, re.MULTILINE))
        program = EXAMPLES / "client" / "segment_folder.py"
        done = run(program, PICTURES, "tree", tmp_path / "out", **printed)
        assert done.returncode == 0, done.stderr
        found = dict(re.findall(r"^(\w+)\.png: (\d+) found", done.stdout, re.MULTILINE))
        assert found == {"kitchen_table": "0", "park": "2", "shapes": "0", "street": "1"}
        assert "4 pictures, 1000 credits" in done.stdout
        assert {path.stem for path in (tmp_path / "out").iterdir()} == found.keys()

        (tmp_path / "mixed").mkdir()
        (tmp_path / "mixed" / "a.png").write_bytes(b"not a picture")
        (tmp_path / "mixed" / "b.png").write_bytes((PICTURES / "park.png").read_bytes())
        done = run(program, tmp_path / "mixed", "sun", tmp_path / "out", **printed)
        assert done.returncode == 1
        assert "b.png: 1 found" in done.stdout
        assert "a.png: not an image that can be read" in done.stderr
    finally:
        service.kill()


@pytest.mark.slow
def test_an_application_of_fastapi_serves_both_services_beside_its_own_routes(tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    service = Process(
        "import sys, uvicorn; sys.path.insert(0, sys.argv[1]);"
        "uvicorn.run('app:app', port=int(sys.argv[2]), log_level='warning')",
        str(EXAMPLES / "fastapi_app"),
        str(port),
        log=tmp_path / "log",
        S3SEG_DATA_DIR=str(tmp_path / "data"),
        S3SEG_CHECKPOINT="embedded",
        API_SECRET_KEY="a key of more than sixteen bytes",
        APP_ADDRESS=address,
    )
    service.start()
    try:
        wait_for(address, "/gpu/ready")
        assert httpx.get(address + "/").json()["api"] == f"{address}/seg/openapi.json"
        assert httpx.post(address + "/login", json={"name": "ann", "password": "x"}).status_code == 401
        given = httpx.post(address + "/login", json={"name": "ann", "password": "rosebud"}).json()
        with s3seg.Client(given["url"], token=given["token"]) as client:
            trees = client.segment(PICTURES / "park.png", "tree")
        assert trees.rles == s3seg.Segmenter("embedded").segment(PICTURES / "park.png", "tree").rles
        assert httpx.get(f"{address}/seg/").status_code == 200  # the page
        assert httpx.post(f"{address}/gpu/api/v1/predict", json={}).status_code == 401
        service.stop()
        assert "Traceback" not in service.log
    finally:
        service.kill()


@pytest.mark.slow
def test_a_folder_becomes_a_yolo_data_set(tmp_path):
    done = run(EXAMPLES / "yolo_dataset" / "make_dataset.py", PICTURES, tmp_path / "dataset", "tree", "cloud", "sun")
    assert done.returncode == 0, done.stderr
    described = yaml.safe_load((tmp_path / "dataset" / "data.yaml").read_text(encoding="utf-8"))
    assert list(described["names"].values()) == ["tree", "cloud", "sun"]
    labels = {path.stem: path.read_text().splitlines() for path in tmp_path.glob("dataset/labels/*/*.txt")}
    pictures = {path.stem for path in tmp_path.glob("dataset/images/*/*.png")}
    assert labels.keys() == pictures == {path.stem for path in PICTURES.glob("*.png")}
    assert sorted(int(line.split()[0]) for line in labels["park"]) == [0, 0, 1, 2]
    assert labels["shapes"] == []
    assert len(list(tmp_path.glob("dataset-drawn/*.jpg"))) == 4


def test_the_regions_for_label_studio_are_the_masks_that_were_found():
    names: dict = {"__name__": "make_project"}
    exec((EXAMPLES / "label_studio" / "make_project.py").read_text(encoding="utf-8"), names)
    results = s3seg.Segmenter("embedded").segment(PICTURES / "park.png", ["tree", "cloud"])
    regions = names["regions"](results)
    assert [region["value"]["brushlabels"] for region in regions] == [["tree"], ["tree"], ["cloud"]]
    with Image.open(PICTURES / "park.png") as picture:
        size = (picture.height, picture.width)
    masks = [instance.mask for result in results for instance in result]
    for region, mask in zip(regions, masks, strict=True):
        assert np.array_equal(decode_brush(region["value"]["rle"], size)[:, :, 3] == 255, mask)
    assert '<Label value="tree"/>' in names["interface"](["tree"])

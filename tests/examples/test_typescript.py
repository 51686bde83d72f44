"""The example in TypeScript, followed as its page says, against a running service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.processes import free_port, wait_for
from tests.helpers.small_things import circles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
PARK = EXAMPLES / "pictures" / "park.png"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    environment = {**os.environ, "S3SEG_DATA_DIR": str(folder / "data"), "S3SEG_CHECKPOINT": "embedded"}
    command = [sys.executable, "-m", "s3seg", "serve", "--port", str(port), "--print-token"]
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}", "/ready")
        yield {**os.environ, **dict(re.findall(r"^export (\w+)=(.*)$", (folder / "out").read_text(), re.MULTILINE))}
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, service: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("example") / "typescript"
    shutil.copytree(EXAMPLES / "typescript", folder, ignore=shutil.ignore_patterns("node_modules", "build", "api.ts"))
    npm(folder, service, "install", "--no-audit", "--no-fund", "--no-package-lock")
    npm(folder, service, "run", "types")
    return folder


def npm(folder: Path, environment: dict[str, str], *arguments: str, check: bool = True):
    command = ["npm", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_compiles_uploads_and_draws_the_masks(example: Path, service: dict[str, str]) -> None:
    done = npm(example, service, "start", "--", str(PARK), "out.png", "tree", "sun")
    assert "found tree, sun" in done.stdout
    before, after = (np.asarray(Image.open(path).convert("RGB"), int) for path in (PARK, example / "out.png"))
    changed = np.abs(before - after).sum(axis=2) > 0
    assert changed[90, 690], "the sun is coloured"
    assert changed[250, 130], "and the tree on the left"
    assert not changed[390, 330], "and the ball is not"


def test_an_error_of_the_service_is_told(example: Path, service: dict[str, str]) -> None:
    done = npm(example, {**service, "S3SEG_TOKEN": "x"}, "start", "--", str(PARK), "out.png", "tree", check=False)
    assert done.returncode == 1
    assert "error: AUTH_INVALID: " in done.stderr


def test_it_looks_into_tiles_if_it_is_told_to(example: Path, service: dict[str, str], tmp_path: Path) -> None:
    (small := tmp_path / "small.png").write_bytes(circles())
    whole = npm(example, service, "start", "--", str(small), "whole.png", "red circle")
    tiles = npm(example, service, "start", "--", "--tile", "300", str(small), "tiles.png", "red circle")
    pictures = (small, example / "whole.png", example / "tiles.png")
    before, after, closely = (np.asarray(Image.open(path).convert("RGB"), int) for path in pictures)
    centres = [(80 + 220 * row, 90 + 215 * column) for row in range(3) for column in range(3)]
    assert "drawn" in whole.stdout
    assert "found red circle" in tiles.stdout
    assert all((before[at] != closely[at]).any() for at in centres)
    assert not all((before[at] != after[at]).any() for at in centres)


def test_a_tile_that_the_service_refuses_is_told(example: Path, service: dict[str, str]) -> None:
    done = npm(example, service, "start", "--", "--tile", "31", str(PARK), "out.png", "tree", check=False)
    assert done.returncode == 1
    assert "error: INVALID_REQUEST: tile: " in done.stderr
    assert "'auto' or a whole number of pixels, 32 or more, got 31" in done.stderr

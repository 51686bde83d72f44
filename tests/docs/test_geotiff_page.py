"""The page on GeoTIFF: its commands and its code, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from s3seg import images
from tests.docs.pairs import PICTURES, ROOT

PAGE = (ROOT / "docs" / "how-to" / "geotiff.md").read_text(encoding="utf-8")


@pytest.mark.slow  # two processes load PyTorch; tests/integrations and tests/commands call the same code
def test_the_page_can_be_followed(tmp_path: Path):
    pixels = np.moveaxis(images.load(PICTURES / "park.png").pixels, -1, 0)
    shape = dict(zip(("count", "height", "width"), pixels.shape, strict=True))
    place = from_origin(500_000, 5_400_000, 0.5, 0.5)
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", crs="EPSG:32633", transform=place, dtype="uint8", **shape
    ) as file:
        file.write(pixels)
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    install, command = (shlex.split(line) for line in commands.splitlines())
    assert install == ["pip", "install", ".[geo]"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-m", *command], **run)
    by_command = json.loads((tmp_path / "trees.geojson").read_text())
    assert len(by_command["features"]) >= 2
    subprocess.run([sys.executable, "-c", code], **run)
    assert json.loads((tmp_path / "trees.geojson").read_text()) == by_command

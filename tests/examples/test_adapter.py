"""The example adapter works as a package of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "adapter"
GUIDE = ROOT / "docs" / "how-to" / "write-an-adapter.md"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")


def python(*arguments, paths=()):
    path = os.pathsep.join([*map(str, paths), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_passes_the_test_suite_of_object_stores():
    result = python(*PYTEST, "tests", paths=[EXAMPLE / "src"])
    assert result.returncode == 0, result.stdout


def test_the_code_in_the_guide_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(block, encoding="utf-8")
    result = python(*PYTEST, str(tmp_path), paths=[EXAMPLE / "src"])
    assert result.returncode == 0, result.stdout


def test_its_entry_point_is_found_by_name(tmp_path):
    # the metadata of an installed package, written without installing it
    info = tmp_path / "s3seg_zip-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: s3seg-zip\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[s3seg.object_store]\nzip = s3seg_zip:from_settings\n")
    script = (
        "from s3seg.app import Parts\n"
        "from s3seg.app.settings import Settings\n"
        "print(type(Parts(Settings(object_store='zip')).objects).__name__)\n"
    )
    result = python("-c", script, paths=[tmp_path, EXAMPLE / "src"])
    assert result.stdout.strip() == "ZipObjectStore", result.stderr

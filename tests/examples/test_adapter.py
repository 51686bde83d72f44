"""The example of a third party's adapter keeps working, as a package of its own."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "adapter"


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


def test_it_passes_the_suite_that_we_ship():
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    result = python(*pytest, "tests", paths=[EXAMPLE / "src"])
    assert result.returncode == 0, result.stdout


def test_its_entry_point_is_found_by_name(tmp_path):
    # what installing the package leaves behind, without a network
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

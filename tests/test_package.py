"""What `import s3seg` costs and offers."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import s3seg

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "numpy",
    "PIL",
    "transformers",
    "pandas",
    "boto3",
    "supabase",
    "starlette",
    "huggingface_hub",
    "ray",
    "pyarrow",
)
PUBLIC = {
    "AsyncClient",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Clicks",
    "Client",
    "Concept",
    "Embedding",
    "ImageDecodeError",
    "InferenceError",
    "Instance",
    "InvalidRequestError",
    "LoadedImage",
    "MaskError",
    "PromptError",
    "S3segError",
    "Segmentation",
    "Segmenter",
    "__version__",
    "bulk",
    "draw",
    "export",
    "local",
    "merge",
    "video_frames",
    "without_overlaps",
}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names_are_these():
    assert set(s3seg.__all__) == PUBLIC
    assert len(s3seg.__all__) == len(PUBLIC)


def test_the_citation_and_the_changelog_are_of_this_version():
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)[1] == s3seg.__version__
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert released[0] == s3seg.__version__


def test_every_public_name_is_there():
    for name in s3seg.__all__:
        assert getattr(s3seg, name) is not None
    assert set(s3seg.__all__) <= set(dir(s3seg))


def test_no_public_name_is_a_module_that_would_take_its_place_once_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(s3seg.__path__)}
    assert modules & set(s3seg.__all__) == {"bulk"}, "which is that module, and can be called"


def test_bulk_is_a_package_that_can_be_called_before_and_after_its_modules_are_imported():
    code = "import s3seg; print(callable(s3seg.bulk)); import s3seg.bulk.plan; print(callable(s3seg.bulk))"
    assert python(code) == "True\nTrue"


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="segmentor"):
        _ = s3seg.segmentor


def test_importing_s3seg_imports_nothing_heavy():
    assert python(f"import sys, s3seg; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


@pytest.mark.parametrize("name", ["export.coco", "draw.overlay"])
def test_a_public_name_works_after_a_bare_import(name):
    assert python(f"import s3seg; print(callable(s3seg.{name}))") == "True"


def test_export_and_draw_can_be_imported_by_name():
    assert python("from s3seg import draw, export; print(callable(draw.overlay), callable(export.coco))") == "True True"


def test_every_import_path_in_the_readmes_table_can_be_imported():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("## What you can import")[2].partition("\n## ")[0]
    paths = re.findall(r"`s3seg\.([\w.]+)`", table)
    assert {"Segmenter", "Client", "AsyncClient", "local", "app", "testing", "export", "draw"} <= set(paths)
    for path in paths:
        if not hasattr(s3seg, path):
            assert importlib.import_module(f"s3seg.{path}").__doc__

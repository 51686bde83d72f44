"""What goes into the Worker: its modules, packages and settings. tests/cloudflare runs it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from s3seg.app.settings import Settings
from tests.cloudflare.runtime import configured

DEPLOY = Path(__file__).parents[2] / "deploy" / "cloudflare"
IN_THE_RUNTIME = {"js", "pyodide"}
HEAVY = {"torch", "numpy", "PIL", "cryptography", "httptools", "uvicorn", "boto3"}


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_worker", DEPLOY / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requirements() -> list[str]:
    lines = (DEPLOY / "requirements.txt").read_text().splitlines()
    return [re.split(r"[=<>~]", line)[0].strip() for line in lines if line and not line.startswith("#")]


def test_the_modules_are_those_of_the_edge_and_import_nothing_heavy(build):
    modules = build.edge_modules()
    assert {"s3seg.app.cloudflare", "s3seg.edge.service", "s3seg.web.routes.tasks", "s3seg.errors"} <= set(modules)
    assert not [name for name in modules if name.startswith(("s3seg.sam3", "s3seg.images", "s3seg.inference"))]
    imported = {name.partition(".")[0] for file in modules.values() for name in build.imports_of(file)}
    assert imported.isdisjoint(HEAVY)


def test_every_package_that_they_import_is_installed_into_the_worker(build):
    provided = {
        module
        for module, names in importlib.metadata.packages_distributions().items()
        for name in names
        if name.lower().replace("_", "-") in requirements()
    }
    for module, file in build.edge_modules().items():
        for name in build.imports_of(file):
            top = name.partition(".")[0]
            if top != "s3seg" and top not in sys.stdlib_module_names | IN_THE_RUNTIME:
                assert top in provided, f"{module} imports {name}"


def test_the_versions_of_the_packages_are_pinned():
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (DEPLOY.parents[1] / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    own = {line.partition("==")[0] for line in (DEPLOY / "requirements.txt").read_text().splitlines() if "==" in line}
    assert set(requirements()) <= pinned | own


def test_the_variables_of_the_example_are_settings():
    for name in configured()["vars"]:
        assert name.removeprefix("S3SEG_").lower() in Settings.model_fields

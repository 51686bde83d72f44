"""Builds the two distributions that are published: ``s3seg`` and ``s3seg-slim``.

    python packaging/build.py              # both wheels, into dist/
    python packaging/build.py --sources    # and both source distributions, which needs the package "build"

``s3seg-slim`` has all modules, and requires only what an edge, a client and the operators' commands need; its extra
``model`` adds what segments. ``s3seg`` has no modules: it requires ``s3seg-slim[model]`` of the same version. Both are
made from ``pyproject.toml``, which itself describes a checkout: ``pip install .`` segments.

Two builds of the same tree are the same to the byte. Wheels need Python 3.11 or later with pip, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("README.md", "LICENSE", "NOTICE")
MODULES = ("src", "supabase")
SHARED = ("description", "readme", "license", "license-files", "requires-python", "keywords", "classifiers")


def main() -> None:
    """Build both distributions, and print the names of their files."""
    parser = argparse.ArgumentParser(description="Build the distributions s3seg and s3seg-slim.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the wheels")
    parser.add_argument("--only", choices=["s3seg", "s3seg-slim"], help="build one of them")
    parser.add_argument("--sources", action="store_true", help="source distributions too")
    asked = parser.parse_args()
    for description in (slim(), full()):
        if asked.only in (None, description["name"]):
            for path in build(description, asked.out.resolve(), sources=asked.sources):
                print(path.name)


def build_all(out: Path) -> list[Path]:
    """Build the wheels and source distributions of both, and return their paths."""
    return [path for description in (slim(), full()) for path in build(description, out, sources=True)]


def slim() -> dict[str, Any]:
    """Return the description of ``s3seg-slim``: name, requirements, extras, scripts, and whether it has the modules."""
    root, model = described(), set(model_packages())
    project = root["project"]
    required = {name_of(requirement): requirement for requirement in project["dependencies"]}
    return {
        "name": "s3seg-slim",
        "dependencies": [requirement for name, requirement in required.items() if name not in model],
        "extras": {
            "images": [required[name] for name in ("hotcoco", "numpy", "pillow")],  # pictures, and masks of clients
            "model": [requirement for name, requirement in required.items() if name in model],
            **project["optional-dependencies"],
        },
        "scripts": project["scripts"],
        "modules": True,
    }


def full() -> dict[str, Any]:
    """Return the description of ``s3seg``, as `slim` does."""
    version = version_of_checkout()
    extras = described()["project"]["optional-dependencies"]
    return {
        "name": "s3seg",
        "dependencies": [f"s3seg-slim[model]=={version}"],
        "extras": {extra: [f"s3seg-slim[{extra}]=={version}"] for extra in extras},
        "scripts": {},
        "modules": False,
    }


def described() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def model_packages() -> list[str]:
    """Return the names of the packages that only segmenting needs."""
    return described()["tool"]["s3seg"]["model-packages"]


def version_of_checkout() -> str:
    """Return the version, which the package's own module has."""
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "src" / "s3seg" / "__init__.py").read_text("utf-8"), re.M)
    if found is None:
        raise ValueError("src/s3seg/__init__.py has no __version__")
    return found[1]


def name_of(requirement: str) -> str:
    """Return the name of the package in a requirement."""
    return re.split(r"[\[<>=~! ]", requirement)[0].lower()


def pyproject_of(description: dict[str, Any]) -> str:
    """Write a description as pyproject.toml; JSON's strings and lists are TOML's too."""
    project = described()["project"]
    lines = ["[build-system]", *assigned(described()["build-system"]), "[project]"]
    lines += assigned({"name": description["name"], "version": version_of_checkout()})
    lines += assigned({key: project[key] for key in SHARED})
    lines += assigned({"dependencies": description["dependencies"]})
    lines += ["[project.optional-dependencies]", *assigned(description["extras"])]
    lines += ["[project.scripts]", *assigned(description["scripts"])]
    lines += ["[tool.hatch.build.targets.wheel]"]
    if not description["modules"]:
        return "\n".join([*lines, "bypass-selection = true", ""])
    wheel = described()["tool"]["hatch"]["build"]["targets"]["wheel"]
    lines += assigned({"packages": wheel["packages"]})
    lines += ["[tool.hatch.build.targets.wheel.force-include]"]
    return "\n".join(
        [*lines, *(f"{json.dumps(key)} = {json.dumps(to)}" for key, to in wheel["force-include"].items()), ""]
    )


def assigned(values: dict[str, Any]) -> list[str]:
    """Return one line for each value."""
    return [f"{key} = {json.dumps(value)}" for key, value in values.items()]


def build(description: dict[str, Any], out: Path, *, sources: bool = False) -> list[Path]:
    """Build a wheel and, if wished, a source distribution; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="s3seg-build-") as folder:
        place = Path(folder)
        for name in TEXTS:
            shutil.copyfile(ROOT / name, place / name)
        for name in MODULES if description["modules"] else ():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        (place / "pyproject.toml").write_text(pyproject_of(description), "utf-8")
        made = place / "made"
        if sources:  # the wheel is built from what the source distribution has
            command = [sys.executable, "-m", "build", "--outdir", str(made), str(place)]
        else:
            command = [
                sys.executable,
                "-m",
                "pip",
                "wheel",
                "--quiet",
                "--no-deps",
                "--wheel-dir",
                str(made),
                str(place),
            ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL if sources else None)  # noqa: S603 - our own
        return [Path(shutil.move(path, out / path.name)) for path in sorted(made.iterdir())]


if __name__ == "__main__":
    main()

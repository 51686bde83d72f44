"""Lists what an installation of s3seg with all its extras consists of, and under which licences.

    make sbom                                                  # the same
    python packaging/sbom.py --environment .venv-installed     # makes this environment anew

It builds the wheels, installs them with every extra in an empty environment, in the versions of constraints.txt, and
writes ``sbom.json`` (CycloneDX) and ``licences.txt``, one line for each package. It ends with an error if a package
states no licence, or one that is not in `ACCEPTED`, or brings a library under the GPL that is not in `BRINGS_GPL`.

Needs the dependency group ``release``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import build as distributions

ROOT = distributions.ROOT
ACCEPTED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"),
    *("LGPL-3.0-only", "MPL-2.0"),  # of the library or the file, and not of what uses it
}
"""Licences, by their SPDX names, that do not reach s3seg or a program that uses it."""
SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD",  # with two clauses or with three
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Other names of these licences, as packages state them."""
GPL_LIBRARIES = ("libx264", "libx265", "libpostproc", "libreadline", "libxvidcore")
BRINGS_GPL = {"av": "video", "pillow_heif": "heic"}
"""Packages whose wheels are known to bring such libraries, and the extra that installs them; NOTICE says so."""


def main() -> None:
    """Make the environment, write both lists, and judge the licences."""
    parser = argparse.ArgumentParser(description="List what an installation of s3seg with all extras consists of.")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-installed", help="made anew")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for sbom.json and licences.txt")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    install(asked.environment)
    packages = next((asked.environment / "lib").glob("python*/site-packages"))
    sbom = write_sbom(asked.environment, packages, asked.out / "sbom.json")
    libraries = gpl_libraries(packages)
    lines = [f"{one['name']} {one['version']}: {' AND '.join(licences(one)) or 'none stated'}" for one in parts(sbom)]
    lines += [f"{package} brings {', '.join(names)}: under the GPL" for package, names in sorted(libraries.items())]
    (asked.out / "licences.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    if wrong := problems(parts(sbom), libraries):
        sys.exit("\n".join(wrong))
    print(f"{len(parts(sbom))} packages, all under licences that were looked at: {asked.out / 'licences.txt'}")


def install(environment: Path) -> None:
    """Install s3seg with all its extras, from wheels, in an environment that has nothing else."""
    extras = ",".join(distributions.full()["extras"])
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)  # noqa: S603
    with tempfile.TemporaryDirectory(prefix="s3seg-wheels-") as folder:
        for description in (distributions.slim(), distributions.full()):
            distributions.build(description, Path(folder))
        pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        limited = ["--constraint", str(ROOT / "constraints.txt"), "--find-links", folder]
        named = f"s3seg[{extras}]=={distributions.version_of_checkout()}"
        subprocess.run([*pip, "install", "--quiet", "--no-compile", *limited, named], check=True)  # noqa: S603
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True)  # noqa: S603


def write_sbom(environment: Path, packages: Path, path: Path) -> dict[str, Any]:
    """Write the SBOM of an environment with s3seg as its root, and return it.

    A licence that a package states in words is added, which CycloneDX's program leaves out.
    """
    with tempfile.TemporaryDirectory(prefix="s3seg-sbom-") as folder:
        root = Path(folder) / "pyproject.toml"
        root.write_text(distributions.pyproject_of(distributions.full()), "utf-8")
        for name in distributions.TEXTS:
            shutil.copyfile(ROOT / name, root.parent / name)
        command = [sys.executable, "-m", "cyclonedx_py", "environment", str(environment / "bin" / "python")]
        command += ["--pyproject", str(root), "--mc-type", "library", "--output-reproducible"]
        command += ["--output-file", str(path)]
        subprocess.run(command, check=True)  # noqa: S603
    sbom = json.loads(path.read_text("utf-8"))
    words = {one.name: one.metadata["License"] for one in metadata.distributions(path=[str(packages)])}
    for component in sbom["components"]:
        if not component.get("licenses") and (stated := words[component["name"]]):
            component["licenses"] = [{"license": {"name": stated, "acknowledgement": "declared"}}]
    path.write_text(json.dumps(sbom, indent=2) + "\n", "utf-8")
    return sbom


def parts(sbom: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the components of an SBOM, s3seg's own first."""
    return [sbom["metadata"]["component"], *sbom["components"]]


def licences(component: dict[str, Any]) -> list[str]:
    """Return the licences that a component states: SPDX names and expressions, or words of its own."""
    stated = component.get("licenses", [])
    names = [one.get("expression") or one["license"].get("id") or one["license"]["name"] for one in stated]
    return list(dict.fromkeys(SPELLINGS.get(name, name) for name in names))


def gpl_libraries(packages: Path) -> dict[str, list[str]]:
    """Return the libraries under the GPL in the wheels of a folder of packages, by package."""
    found: dict[str, list[str]] = {}
    for folder in sorted(packages.glob("*.libs")):
        names = sorted(file.name for file in folder.iterdir() if file.name.startswith(GPL_LIBRARIES))
        if names:
            found[folder.name.removesuffix(".libs")] = names
    return found


def problems(components: Iterable[dict[str, Any]], libraries: Iterable[str]) -> list[str]:
    """Return a sentence for each licence that was not looked at."""
    found = []
    for component in components:
        stated = licences(component)
        names = {name for one in stated for name in re.split(r" AND | OR |[()]", one)} - {""}
        if not stated:
            found.append(f"{component['name']} {component['version']} states no licence")
        elif names - ACCEPTED:
            unknown = ", ".join(sorted(names - ACCEPTED))
            found.append(f"{component['name']} {component['version']} is under {unknown}, which ACCEPTED does not have")
    return found + [
        f"{package} brings a library under the GPL, and BRINGS_GPL does not have it"
        for package in sorted(set(libraries) - BRINGS_GPL.keys())
    ]


if __name__ == "__main__":
    main()

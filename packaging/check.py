"""Builds the distributions, and tries them in empty environments: what a release must pass.

    make release                                      # the same, with python3.11, python3.12 and python3.13
    python packaging/check.py --python python3.12     # with this one only
    python packaging/check.py --versions lowest       # with the oldest versions that pyproject.toml allows
    python packaging/check.py --versions newest       # with the newest that pip finds
    python packaging/check.py --versions newest --pinned torch    # with the newest, and PyTorch as in constraints.txt
    python packaging/check.py --stages                # from an empty environment to the first mask, by stage

It builds twice and compares, checks the metadata, and then for each Python: installs both wheels, and runs ``s3seg
doctor``, ``s3seg segment`` and ``s3seg serve`` from an empty folder; then it installs ``s3seg-slim`` alone, and runs
``s3seg serve edge``. It prints how long each took, and what the installation weighs. By default all that is required
comes in the versions of constraints.txt.

Needs the dependency group ``release``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import build as distributions

ROOT = distributions.ROOT
PYTHONS = ("python3.11", "python3.12", "python3.13")
PICTURE = ROOT / "examples" / "pictures" / "park.png"
READY_S = 120


def main() -> None:
    """Build, check, and try with each Python; stop at the first that fails."""
    parser = argparse.ArgumentParser(description="Build the distributions, and try them in empty environments.")
    parser.add_argument("--python", action="append", help=f"may be repeated; default: {', '.join(PYTHONS)}")
    parser.add_argument("--versions", choices=["pinned", "lowest", "newest"], default="pinned", help="of requirements")
    parser.add_argument("--pinned", action="append", default=[], help="a package that stays as in constraints.txt")
    parser.add_argument("--stages", action="store_true", help="time the way to the first mask, and try nothing else")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the distributions")
    asked = parser.parse_args()
    out = asked.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    built = build_twice(out)
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], check=True)  # noqa: S603
    wheels = [path for path in built if path.suffix == ".whl"]
    for python in asked.python or PYTHONS:
        with tempfile.TemporaryDirectory(prefix="s3seg-release-") as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("".join(f"{line}\n" for line in limits(asked.versions, asked.pinned)))
            if asked.stages:
                time_stages(python, wheels, constraints, Path(folder))
            else:
                try_out(python, wheels, constraints, Path(folder))
    if "unreleased" in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        print("before uploading: give this version its date in CHANGELOG.md, which calls it unreleased")


def build_twice(out: Path) -> list[Path]:
    """Build everything into a folder, and again elsewhere.

    Raises:
        SystemExit: Two builds differ.
    """
    built = distributions.build_all(out)
    with tempfile.TemporaryDirectory(prefix="s3seg-again-") as folder:
        for again in distributions.build_all(Path(folder)):
            if digest(again) != digest(out / again.name):
                sys.exit(f"{again.name}: two builds of the same tree differ")
    for path in built:
        size = path.stat().st_size / 1e6
        print(f"{path.name}: {size:.2f} MB, sha256 {digest(path)}, the same in two builds", flush=True)
    return built


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Environment:
    """An empty environment of a Python, and a folder to work in; notes how long each command took.

    Attributes:
        packages: The folder of its packages.
        work: The folder.
        stages: Name, seconds and seconds of processor time of each command so far.
    """

    def __init__(self, python: str, folder: Path) -> None:
        self._path, self.work, self.stages = folder / "environment", folder / "work", list[tuple[str, float, float]]()
        self.work.mkdir(parents=True)
        self._run("an empty environment", python, "-m", "venv", str(self._path))
        self.packages = next((self._path / "lib").glob("python*/site-packages"))
        version = self.run("its version", "python", "-c", "import platform; print(platform.python_version())")
        print(f"== Python {version.strip()}", flush=True)

    def program(self, name: str) -> str:
        """Return the path of a program in the environment."""
        return str(self._path / "bin" / name)

    def pip(self, name: str, constraints: Path, *arguments: str) -> None:
        """Install something."""
        command = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints))
        self.run(name, "python", *command, *arguments)

    def run(self, name: str, program: str, *arguments: str) -> str:
        """Run a program of the environment and return its output; end with it if it fails."""
        return self._run(name, self.program(program), *arguments)

    def _run(self, name: str, *command: str) -> str:
        with self.stage(name):
            done = subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note how long what happens meanwhile takes, with the processes that have ended by then."""
        start, before = time.perf_counter(), os.times()
        yield
        after = os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        self.stages.append((name, time.perf_counter() - start, used))


def try_out(python: str, wheels: list[Path], constraints: Path, folder: Path) -> None:
    """Install the wheels in an empty environment, and run what a newcomer runs; then the slim one alone."""
    full = Environment(python, folder / "full")
    full.pip("pip install s3seg", constraints, *map(str, wheels))
    full.run("pip check", "python", "-m", "pip", "check")
    require_version(full)
    full.run("s3seg doctor", "s3seg", "doctor")
    segment(full, "s3seg segment")
    serve(full, "serve")
    report(full)
    slim = Environment(python, folder / "slim")
    [wheel] = (path for path in wheels if path.name.startswith("s3seg_slim"))
    slim.pip("pip install s3seg-slim[images]", constraints, f"{wheel}[images]")
    slim.run("pip check", "python", "-m", "pip", "check")
    require_version(slim)
    serve(slim, "serve", "edge")
    report(slim)


def time_stages(python: str, wheels: list[Path], constraints: Path, folder: Path) -> None:
    """Print how long each stage takes from nothing to the first mask, and its share."""
    environment = Environment(python, folder / "stages")
    required = distributions.described()["project"]["dependencies"]
    torch = [requirement for requirement in required if distributions.name_of(requirement) == "torch"]
    environment.pip("PyTorch, with what it requires", constraints, *torch)
    environment.pip("everything else that is required", constraints, *required)
    environment.pip("s3seg", constraints, "--no-deps", *map(str, wheels))
    segment(environment, "the first mask: s3seg segment")
    report(environment)
    segment(environment, "the second mask: s3seg segment")
    name, seconds, used = environment.stages[-1]
    print(f"{name}, for comparison: {seconds:.1f} s, {used:.1f} s of the processor", flush=True)


def report(environment: Environment) -> None:
    """Print how long the commands took, by the clock and of the processor, and what the installation weighs."""
    total, total_used = (sum(stage[number] for stage in environment.stages) for number in (1, 2))
    print("   clock           processor")
    for name, seconds, used in environment.stages:
        print(f"{seconds:6.1f} s {seconds / total:4.0%}  {used:6.1f} s {used / total_used:4.0%}  {name}")
    print(f"{total:6.1f} s       {total_used:6.1f} s       in all", flush=True)
    print_sizes(environment.packages)


def require_version(environment: Environment) -> None:
    """End if the installed program or its metadata have another version than the checkout."""
    version = distributions.version_of_checkout()
    said = environment.run("s3seg --version", "s3seg", "--version").split()[-1]
    listed = json.loads(environment.run("pip list", "python", "-m", "pip", "list", "--format", "json"))
    of_metadata = {one["version"] for one in listed if one["name"].startswith("s3seg")}
    if {said, *of_metadata} != {version}:
        sys.exit(f"the checkout is {version}, s3seg --version says {said}, the metadata {', '.join(of_metadata)}")


def segment(environment: Environment, name: str) -> None:
    """Find the trees of an example picture; end if there are none."""
    [trees] = json.loads(environment.run(name, "s3seg", "segment", str(PICTURE), "tree", "--json"))
    if not trees["instances"]:
        sys.exit(f"no tree was found in {PICTURE.name}")


def limits(versions: str, pinned: list[str]) -> list[str]:
    """Return the constraints that make pip take the pinned, the lowest or the newest versions.

    Args:
        versions: "pinned": as in constraints.txt; "lowest": the oldest that pyproject.toml allows; "newest": any.
        pinned: Packages that are taken as in constraints.txt whatever the first argument says.

    Raises:
        SystemExit: constraints.txt does not have one of these packages.
    """
    fixed = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    if versions == "pinned":
        return fixed
    kept = [line for line in fixed if distributions.name_of(line) in pinned]
    if len(kept) < len(pinned):
        sys.exit(f"constraints.txt does not have all of: {', '.join(pinned)}")
    if versions == "newest":
        return kept
    required = distributions.described()["project"]["dependencies"]
    oldest = [line.replace(">=", "==") for line in without_extras(required)]
    return kept + [line for line in oldest if distributions.name_of(line) not in pinned]


def without_extras(requirements: list[str]) -> list[str]:
    """Return requirements without their extras, which constraints must not have."""
    return [re.sub(r"\[.*?\]", "", requirement) for requirement in requirements]


def serve(environment: Environment, *command: str) -> None:
    """Start a service, wait until it is ready, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start, log_file = time.perf_counter(), environment.work / "serve.log"
    started = [environment.program("s3seg"), *command, "--port", str(port)]
    with environment.stage(f"s3seg {' '.join(command)}, until it is ready, and its end"), log_file.open("w") as log:
        process = subprocess.Popen(started, cwd=environment.work, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            while not is_ready(f"http://127.0.0.1:{port}/ready"):
                if process.poll() is not None or time.perf_counter() - start > READY_S:
                    sys.exit(f"s3seg {' '.join(command)} did not get ready:\n{log_file.read_text()}")
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(30)


def is_ready(url: str) -> bool:
    """Return whether a service answers that it is ready."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def print_sizes(packages: Path) -> None:
    """Print what the largest parts of an installation weigh."""
    sizes = {
        path.name: sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        for path in packages.iterdir()
        if path.is_dir()
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:6]
    parts = ", ".join(f"{name} {sizes[name]:.0f}" for name in dict.fromkeys([*largest, "s3seg"]))
    print(f"  {sum(sizes.values()):.0f} MB in site-packages: {parts}", flush=True)


if __name__ == "__main__":
    main()

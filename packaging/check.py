"""Builds the distributions, and tries them in empty environments: what a release must pass.

    make release                                      # the same, with python3.11, python3.12 and python3.13
    python packaging/check.py --python python3.12     # with this one only
    python packaging/check.py --versions lowest       # with the oldest versions that pyproject.toml allows
    python packaging/check.py --versions newest       # with the newest that pip finds

It builds twice and compares, checks the metadata, and then for each Python: installs both wheels, and runs ``s3seg
doctor``, ``s3seg segment`` and ``s3seg serve`` from an empty folder. It prints how long each took, and what the
installation weighs. By default all that is required comes in the versions of constraints.txt.

Needs the dependency group ``release``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
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
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the distributions")
    asked = parser.parse_args()
    out = asked.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    built = build_twice(out)
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], check=True)  # noqa: S603
    wheels = [path for path in built if path.suffix == ".whl"]
    for python in asked.python or PYTHONS:
        with tempfile.TemporaryDirectory(prefix="s3seg-release-") as folder:
            try_out(python, wheels, Path(folder), versions=asked.versions)


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


def try_out(python: str, wheels: list[Path], folder: Path, *, versions: str) -> None:
    """Install the wheels in an empty environment, and run what a newcomer runs."""
    environment, work = folder / "environment", folder / "work"
    work.mkdir()
    subprocess.run([python, "-m", "venv", str(environment)], check=True)  # noqa: S603
    version = subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"], text=True)  # noqa: S603
    print(f"== Python {version.strip()}", flush=True)

    def run(*command: str) -> str:
        start = time.perf_counter()
        program = str(environment / "bin" / command[0])
        done = subprocess.run([program, *command[1:]], cwd=work, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        print(f"{time.perf_counter() - start:6.1f} s  {' '.join(command[:3])}", flush=True)
        return done.stdout

    constraints = {"pinned": ROOT / "constraints.txt", "lowest": lowest(folder / "lowest.txt")}.get(versions)
    limited = ["-c", str(constraints)] if constraints else []
    run("python", "-m", "pip", "install", "--quiet", *limited, *map(str, wheels))
    run("python", "-m", "pip", "check")
    print_sizes(next((environment / "lib").glob("python*/site-packages")))
    run("s3seg", "doctor")
    [trees] = json.loads(run("s3seg", "segment", str(PICTURE), "tree", "--json"))
    if not trees["instances"]:
        sys.exit(f"no tree was found in {PICTURE.name}")
    serve(environment / "bin" / "s3seg", work)


def lowest(path: Path) -> Path:
    """Write constraints for the oldest versions that pyproject.toml allows."""
    required = distributions.described()["project"]["dependencies"]
    path.write_text("".join(f"{requirement.replace('>=', '==')}\n" for requirement in without_extras(required)))
    return path


def without_extras(requirements: list[str]) -> list[str]:
    """Return requirements without their extras, which constraints must not have."""
    return [re.sub(r"\[.*?\]", "", requirement) for requirement in requirements]


def serve(program: Path, work: Path) -> None:
    """Start the service, wait until it is ready, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    with (work / "serve.log").open("w") as log:
        command = [str(program), "serve", "--port", str(port)]
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
    try:
        while not is_ready(f"http://127.0.0.1:{port}/ready"):
            if process.poll() is not None or time.perf_counter() - start > READY_S:
                sys.exit(f"s3seg serve did not get ready:\n{(work / 'serve.log').read_text()}")
            time.sleep(0.1)
        print(f"{time.perf_counter() - start:6.1f} s  s3seg serve, until it is ready", flush=True)
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
    parts = ", ".join(f"{name} {sizes[name]:.0f}" for name in [*largest, "s3seg"])
    print(f"  {sum(sizes.values()):.0f} MB in site-packages: {parts}", flush=True)


if __name__ == "__main__":
    main()

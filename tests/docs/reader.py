"""Somebody who follows a page of the documentation word by word, in a folder of their own."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.blocks import SHELL, Block, commands_of
from tests.helpers.processes import free_port

_SERVER = re.compile(r"(?:^|[\s/])(?:s3seg (serve edge|serve gpu|serve|mcp --http)|python -m (uvicorn))\b")
_PORTS = {"serve": 8000, "serve edge": 8000, "serve gpu": 8001, "mcp --http": 8002, "uvicorn": 8002}
_PORT_IN_TEXT = re.compile(r"((?:localhost|127\.0\.0\.1):|--port )(8000|8001|8002)\b")
_WEB = "https://example.org/"
_ELSEWHERE = re.compile(r"(?<![\w./])/(srv|backups)/")


class Reader:
    """Runs blocks in order: Python in one namespace, shell in one environment, services until they are started again.

    Ports are exchanged for free ones, folders outside of one's own (``/srv``, ``/backups``) for some within, and
    ``https://example.org`` for a server that has the files of the folder.

    Args:
        folder: An empty folder, which becomes the working folder of this process too.
        patch: Changes the environment of this process.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.output = ""
        self._patch = patch
        self._cwd = folder
        self._ports = {str(port): str(free_port()) for port in _PORTS.values()}
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._log = folder / ".services.log"
        self._web = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        threading.Thread(target=self._web.serve_forever, args=(0.02,), daemon=True).start()
        (folder / "home").mkdir()
        paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
        python = f"PYTHONPATH={shlex.quote(paths)} exec {shlex.quote(sys.executable)}"
        for command in ("bin", ".venv/bin"):
            (folder / command).mkdir(parents=True)
            self._write_program(folder / command / "s3seg", f'{python} -m s3seg "$@"')
        self._write_program(folder / "bin" / "python", f'{python} "$@"')
        patch.chdir(folder)
        self._set(
            {
                "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
                "HOME": str(folder / "home"),
                "OMP_NUM_THREADS": "1",
                "S3SEG_PUBLIC_BASE_URL": f"http://127.0.0.1:{self._ports['8000']}/files",  # the default, on our port
                "NO_COLOR": "1",
            }
        )

    def close(self) -> None:
        """Stop the services."""
        for port in list(self._services):
            self._stop(port)
        self._web.shutdown()
        self._web.server_close()

    def follow(self, block: Block) -> None:
        """Run a block.

        Raises:
            AssertionError: A command failed; with its output.
            Exception: Whatever Python code raised.
        """
        if block.language in SHELL:
            self._run_shell(block)
        elif block.file is not None:
            (self._cwd / block.file).write_text(self._here(block.code), encoding="utf-8")
            self.run(f"python {block.file}")
        else:
            self._run_python(block)

    def run(self, script: str) -> str:
        """Run commands with the variables of those before, keep theirs for those to come, and return their output."""
        state = self.folder / ".environment"
        kept = f'\nset +x; {{ pwd; env -0; }} > "{state}"'
        done = subprocess.run(
            ["bash", "-aeuo", "pipefail", "-c", script + kept],
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        self.output += output
        services = self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""
        assert done.returncode == 0, f"{script}\nexit code {done.returncode}\n{output[-5000:]}\n{services}"
        cwd, _, variables = state.read_bytes().partition(b"\n")
        self._cwd = Path(os.fsdecode(cwd))
        self._set(dict(pair.split("=", 1) for pair in os.fsdecode(variables).split("\0") if "=" in pair))
        return output

    def _run_shell(self, block: Block) -> None:
        waiting: list[str] = []
        for command in commands_of(block):
            command = self._here(command)
            if (server := _SERVER.search(command)) is None:
                waiting.append(command)
                continue
            self.run("\n".join(waiting))
            waiting = []
            self._serve(server[1] or server[2], command)
        self.run("\n".join(waiting))

    def _serve(self, kind: str, command: str) -> None:
        command = " ".join(shlex.quote(word) if " " in word else word for word in shlex.split(command, comments=True))
        named = re.search(r"--port (\d+)", command)
        port = named[1] if named else self._ports[str(_PORTS[kind])]
        command += ("" if named else f" --port {port}") + (" --print-token" if kind == "serve" else "")
        self._stop(port)
        self._log.touch()
        before = self._log.stat().st_size
        with self._log.open("ab") as log:
            self._services[port] = subprocess.Popen(
                ["bash", "-c", command], cwd=self._cwd, stdout=log, stderr=log, start_new_session=True
            )
        path = {"mcp --http": "/", "uvicorn": "/", "serve gpu": "/ready"}.get(kind, "/health")
        give_up = time.monotonic() + 60
        while not self._answers(f"http://127.0.0.1:{port}{path}", any_status=path == "/"):
            running = self._services[port].poll() is None and time.monotonic() < give_up
            assert running, f"{command}: {self._log.read_text(errors='replace')[-5000:]}"
            time.sleep(0.1)
        printed = self._log.read_bytes()[before:].decode(errors="replace")
        self._set(dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.MULTILINE)))  # which the page says to paste

    @staticmethod
    def _answers(url: str, *, any_status: bool) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, timeout=5).is_success or any_status
        return False

    def _stop(self, port: str) -> None:
        running = self._services.pop(port, None)
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait(30)

    def _run_python(self, block: Block) -> None:
        tree = ast.parse("\n" * (block.line - 1) + self._here(block.code), block.page)
        code = compile(tree, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # as in a notebook
        if not code.co_flags & inspect.CO_COROUTINE:
            exec(code, self.names)
            return
        function = types.FunctionType(code, self.names)
        asyncio.run(function())

    def _here(self, text: str) -> str:
        text = _PORT_IN_TEXT.sub(lambda found: found[1] + self._ports[found[2]], text)
        text = text.replace(_WEB, f"http://127.0.0.1:{self._web.server_port}/")
        return _ELSEWHERE.sub(rf"{self.folder}/\1/", text)

    def _set(self, variables: dict[str, str]) -> None:
        for name, value in variables.items():
            if name not in ("_", "SHLVL", "PWD", "OLDPWD") and os.environ.get(name) != value:
                self._patch.setenv(name, value)

    @staticmethod
    def _write_program(path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        path.chmod(0o755)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Say nothing about requests."""

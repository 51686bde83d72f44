"""Signals, with a real process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SERVE = """
import asyncio, contextlib, sys
from starlette.applications import Starlette
from s3seg.web.server import run_server

@contextlib.asynccontextmanager
async def lifespan(app):
    print("started", flush=True)
    yield
    print("ending", flush=True)
    await asyncio.sleep(float(sys.argv[1]))
    print("ended", flush=True)

run_server(Starlette(lifespan=lifespan), host="127.0.0.1", port=0)
"""


@pytest.mark.parametrize(("takes_s", "signals", "said"), [(0.5, 1, "ended\n"), (600, 2, "")])
def test_sigterm_lets_the_lifespan_end_and_a_second_one_does_not(takes_s, signals, said):
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(takes_s)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in ["started\n", "ending\n"][:signals]:
                assert process.stdout.readline() == line
                process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert rest.removeprefix("ending\n") == said
    assert process.returncode == -signal.SIGTERM

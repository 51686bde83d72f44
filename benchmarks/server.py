"""The same bare Starlette route under our connection limits, and under uvicorn as it comes, in turns.

Servers that are installed beside them (granian, hypercorn) are measured too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import tempfile

from rich.console import Console
from rich.table import Table

from benchmarks.http_load import BARE, Served, free_port, load, request_bytes, serving

_APP = BARE[: BARE.index("run_server(app")].replace("from s3seg.web.server import run_server\n", "")
_PLAIN = _APP + (
    "import uvicorn\n"
    "uvicorn.run(app, host='127.0.0.1', port=int(sys.argv[1]), http='httptools', ws='none', access_log=False,"
    " server_header=False, log_level='warning')\n"
)
_HYPERCORN = _APP + (
    "import asyncio\n"
    "from hypercorn.asyncio import serve\n"
    "from hypercorn.config import Config\n"
    "asyncio.run(serve(app, Config.from_mapping(bind=f'127.0.0.1:{sys.argv[1]}')))\n"
)
_GRANIAN = _APP + (
    "from granian.server.embed import Server\n"
    "import asyncio\n"
    "asyncio.run(Server(app, address='127.0.0.1', port=int(sys.argv[1]), interface='asgi').serve())\n"
)
_ROUNDS = 7


def main() -> None:
    """Measure answers a second and the processor time of an answer."""
    servers = {"uvicorn": _PLAIN, "uvicorn with our limits": BARE}
    for name, code in {"hypercorn": _HYPERCORN, "granian": _GRANIAN}.items():
        if importlib.util.find_spec(name):
            servers[name] = code
    runs: dict[str, list[Served]] = {name: [] for name in servers}
    request = request_bytes("GET", "/constant", {"Accept": "*/*", "User-Agent": "benchmark"})
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        running = {}
        for name, code in servers.items():
            port = free_port()
            running[name] = stack.enter_context(
                serving(code, str(port), folder, path="/constant", environment={}, port=port)
            )
        for turn in range(_ROUNDS + 1):
            for name, server in running.items():
                served = load(server, request, status=200, seconds=1.5)
                if turn:  # the first warms up
                    runs[name].append(served)
    table = Table(title="a bare route, 16 connections, a request at a time each", title_justify="left")
    for column in ("", "per second", "p50, ms", "p99, ms", "server CPU, µs", "CPU / uvicorn"):
        table.add_column(column, justify="right" if column else "left")
    first = runs["uvicorn"]
    for name, served in runs.items():
        table.add_row(
            name,
            f"{statistics.median(run.per_second for run in served):.0f}",
            f"{statistics.median(run.p50_ms for run in served):.1f}",
            f"{statistics.median(run.p99_ms for run in served):.1f}",
            f"{statistics.median(run.cpu_us for run in served):.0f}",
            f"{statistics.median(one.cpu_us / base.cpu_us for one, base in zip(served, first, strict=True)):.2f}",
        )
    Console(width=120).print(table)

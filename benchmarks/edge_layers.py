"""A poll of a task by layers: what each part of the edge adds to a bare route, in microseconds of processor time.

Each server has one layer more than the one before it, made of the edge's own parts; all run at the same time, and are
loaded in turns. ``python -m benchmarks edge --account`` prints the table of docs/explanation/performance.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.http_load import Server, free_port, load, request_bytes, serving
from s3seg.app import Parts, edge_app, local_keys
from s3seg.app.settings import Settings
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.web.app import build_app
from s3seg.web.edge_app import build_edge_app
from s3seg.web.envelope import render_error
from s3seg.web.errors import rate_headers
from s3seg.web.logs import configure_logging
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Operation
from s3seg.web.prefix import PrefixMiddleware
from s3seg.web.server import run_server

LAYERS = (
    "bare route, constant JSON, same server",
    "the table of routes",
    "request id, check of the head, metrics, prefix",
    "the log line",
    "the token, from the cache",
    "the rate limit (off, but decided)",
    "reading the row",
    "response, envelope, ETag: the whole edge",
)
_PATH = "/api/v1/tasks/{task_id}"
_SERVE = "from benchmarks.edge_layers import serve; serve()"
_ANSWER = {
    "success": True,
    "data": {
        "task_id": "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11",
        "status": "done",
        "result_id": "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11",
        "created_at": "2026-01-01T00:00:00.000000Z",
        "updated_at": "2026-01-01T00:00:00.000000Z",
    },
    "error": None,
    "meta": {"request_id": "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11", "timestamp": "2026-01-01T00:00:00.000000Z"},
}


def serve() -> None:
    """Serve the edge up to a layer; the arguments are its number and the port."""
    layer, port = int(sys.argv[1]), int(sys.argv[2])
    configure_logging()
    if layer < LAYERS.index("the log line"):
        logging.getLogger().setLevel(logging.WARNING)
    run_server(_app(layer), host="127.0.0.1", port=port)


def _app(layer: int) -> Starlette:
    parts = Parts()
    if layer == len(LAYERS) - 1:
        return edge_app(parts=parts)
    edge = Edge(
        objects=parts.objects,
        tasks=parts.task_store,
        authenticator=parts.authenticator,
        limiter=parts.rate_limiter,
        notifier=parts.notifier,
    )

    async def constant(request: Request) -> Response:
        return JSONResponse(_ANSWER)

    async def read(request: Request) -> Response:
        await edge.tasks.get_task(request.user, request.path_params["task_id"])
        return JSONResponse(_ANSWER)

    if layer == 0:
        return Starlette(routes=[Route(_PATH, constant)])
    whole = build_edge_app(edge)
    if layer == 1:
        # the edge's routes, in its order, before and after the one that is asked for
        routes = [Route(one.path, constant) for one in whole.routes if isinstance(one, Route)]
        return Starlette(routes=routes)

    async def guard(request: Request, operation: Operation) -> Response:
        if layer >= LAYERS.index("the token, from the cache"):
            caller = await edge.authenticate(request.headers.get("authorization"))
            request.scope["user"] = caller
            if layer >= LAYERS.index("the rate limit (off, but decided)"):
                rate = await edge.rate_limits.count(caller, operation.action) if operation.action else None
                response = await operation.handler(request)
                response.headers.update(rate_headers(rate))
                return response
        return await operation.handler(request)

    handler: Callable[[Request], Awaitable[Response]] = read if layer >= LAYERS.index("reading the row") else constant
    operations = [
        Operation(method="GET", path=one.path, handler=handler, summary="", responses={}, action=Action.TASKS)
        for one in whole.routes
        if isinstance(one, Route)
    ]
    return build_app(
        operations,
        render_error=render_error,
        metrics=HttpMetrics(),
        guard=guard,
        outer_middleware=[Middleware(PrefixMiddleware, prefix="")],
    )


def measure(*, rounds: int = 7, seconds: float = 1.5) -> list[tuple[str, float, float]]:
    """Load all servers in turns.

    Returns:
        For each layer its name, the median microseconds that it adds, and the least; of the first, all that it takes.
    """
    from benchmarks.edge import fill

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        settings = Settings(data_dir=Path(folder), rate_limits="off", decode_processes=0)
        task_id = fill(settings, "ann", 1000)
        token = local_keys(settings).mint("ann")
        request = request_bytes("GET", f"/api/v1/tasks/{task_id}", {"Authorization": f"Bearer {token}"})
        environment = {"S3SEG_DATA_DIR": folder, "S3SEG_RATE_LIMITS": "off", "S3SEG_DECODE_PROCESSES": "0"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        servers: list[Server] = []
        for layer in range(len(LAYERS)):
            port = free_port()
            arguments = (str(layer), str(port))
            server = serving(_SERVE, *arguments, path="/", environment=environment, port=port)
            servers.append(running.enter_context(server))
        taken: list[list[float]] = []
        for turn in range(rounds + 1):
            now = [load(server, request, status=200, seconds=seconds).cpu_us for server in servers]
            if turn:  # the first warms up
                taken.append(now)
    added: list[tuple[str, float, float]] = []
    for layer, name in enumerate(LAYERS):
        differences = [turn[layer] - (turn[layer - 1] if layer else 0.0) for turn in taken]
        least = min(turn[layer] for turn in taken) - (min(turn[layer - 1] for turn in taken) if layer else 0.0)
        added.append((name, statistics.median(differences), least))
    return added


def show(found: list[tuple[str, float, float]]) -> None:
    """Print it as Markdown, with the ratio to the bare route."""
    bare, total = found[0][1], 0.0
    print("\n| layer | adds, µs | least, µs | up to here | bare / up to here |")
    print("|---|---|---|---|---|")
    for name, median, least in found:
        total += median
        print(f"| {name} | {median:.0f} | {least:.0f} | {total:.0f} | {bare / total:.2f} |")

"""Routes of the edge: each reads a request, calls one use case of `s3seg.edge`, and wraps what it gives."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from s3seg.api.additions import (
    DeletedResponse,
    EdgeHealthResponse,
    PageQuery,
    ProjectRequest,
    ReadyResponse,
)
from s3seg.api.edge import ResultsQuery, SegmentRequest, SegmentResponse
from s3seg.api.envelope import ApiResponse
from s3seg.edge import Edge
from s3seg.errors import UnavailableError
from s3seg.tasks.limits import RATE_LIMITS, RateTable
from s3seg.tasks.model import Task
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import Identity, microseconds
from s3seg.version import __version__
from s3seg.web import edge_answers
from s3seg.web.bodies import read_json, read_query
from s3seg.web.errors import ErrorAnswer, rate_headers
from s3seg.web.events import Event, event_stream
from s3seg.web.multipart import read_upload
from s3seg.web.service import request_id_of

MAX_WAIT_S = 60
"""Longest ``Prefer: wait`` that is honoured; more is cut to this."""

MAX_STREAM_S = 900.0
"""Longest event stream, seconds."""

_PREFERRED_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.ASCII | re.IGNORECASE)
_OF_OBJECTS = {
    "X-Content-Type-Options": "nosniff",
    # a picture that is also a page must not become one
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=31536000, immutable",  # keys are never used twice
}


class EdgeRoutes:
    """The handlers, by name.

    Args:
        edge: The use cases.
        rates: The table that the limiter goes by, for /me.
    """

    def __init__(self, edge: Edge, *, rates: RateTable = RATE_LIMITS) -> None:
        self._edge = edge
        self._rates = rates

    # ---- the contract ----

    async def upload(self, request: Request) -> Response:
        """POST /api/v1/upload."""
        stored = await self._edge.upload(await self._caller(request), lambda: read_upload(request))
        return answer(request, edge_answers.upload_response(stored.value), rate=stored.rate)

    async def segment(self, request: Request) -> Response:
        """POST /api/v1/segment."""
        caller = await self._caller(request)
        order = await read_json(request, SegmentRequest)
        submitted = await self._edge.submit(caller, order, idempotency_key=request.headers.get("idempotency-key"))
        task, wait_s = submitted.task, _preferred_wait(request)
        headers = {"Location": f"{_base(request)}/api/v1/tasks/{task.task_id}"}
        if wait_s is not None and (task.ended or self._edge.can_wait):
            headers["Preference-Applied"] = f"wait={wait_s}"
            task = await self._edge.wait(caller, task, timeout_s=wait_s)
            if task.ended:
                return answer(request, edge_answers.task_response(task), rate=submitted.rate, headers=headers)
        body = SegmentResponse(task_id=task.task_id, status="pending")
        return answer(request, body, status=202, rate=submitted.rate, headers={**headers, "Retry-After": "1"})

    async def task(self, request: Request) -> Response:
        """GET /api/v1/tasks/{task_id}."""
        found = await self._edge.task(await self._caller(request), request.path_params["task_id"])
        headers = {"ETag": _etag(found.value)}
        if _is_known(request, headers["ETag"]):
            return Response(status_code=304, headers={**headers, **_rate_headers(found.rate)})
        return answer(request, edge_answers.task_response(found.value), rate=found.rate, headers=headers)

    async def results(self, request: Request) -> Response:
        """GET /api/v1/results."""
        caller = await self._caller(request)
        query = read_query(request, ResultsQuery)
        page = await self._edge.results(caller, query)
        return answer(request, edge_answers.results_response(page.value, query), rate=page.rate)

    async def result(self, request: Request) -> Response:
        """GET /api/v1/results/{result_id}."""
        found = await self._edge.result(await self._caller(request), request.path_params["result_id"])
        headers = {"ETag": _etag(found.value)}
        if _is_known(request, headers["ETag"]):
            return Response(status_code=304, headers={**headers, **_rate_headers(found.rate)})
        return answer(request, edge_answers.result_response(found.value), rate=found.rate, headers=headers)

    # ---- additions ----

    async def events(self, request: Request) -> Response:
        """GET /api/v1/tasks/{task_id}/events."""
        caller = await self._caller(request)
        stream = await self._edge.events(caller, request.path_params["task_id"], timeout_s=MAX_STREAM_S)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter: nginx must not hold it back
        headers |= _rate_headers(stream.rate)
        if request.method == "HEAD":  # nothing to wait for
            return Response(headers=headers, media_type="text/event-stream")
        return StreamingResponse(
            event_stream(_task_responses(stream.value)), media_type="text/event-stream", headers=headers
        )

    async def cancel(self, request: Request) -> Response:
        """POST /api/v1/tasks/{task_id}/cancel."""
        task = await self._edge.cancel(await self._caller(request), request.path_params["task_id"])
        return answer(request, edge_answers.task_response(task.value), rate=task.rate)

    async def delete_result(self, request: Request) -> Response:
        """DELETE /api/v1/results/{result_id}."""
        deleted = await self._edge.delete_result(await self._caller(request), request.path_params["result_id"])
        return answer(request, DeletedResponse(id=deleted.value.task_id), rate=deleted.rate)

    async def delete_image(self, request: Request) -> Response:
        """DELETE /api/v1/images/{image_id}."""
        deleted = await self._edge.delete_image(await self._caller(request), request.path_params["image_id"])
        return answer(request, DeletedResponse(id=deleted.value.image_id), rate=deleted.rate)

    async def me(self, request: Request) -> Response:
        """GET /api/v1/me."""
        account = await self._edge.me(await self._caller(request))
        return answer(request, edge_answers.me_response(account.value, self._rates), rate=account.rate)

    async def projects(self, request: Request) -> Response:
        """GET /api/v1/projects."""
        caller = await self._caller(request)
        query = read_query(request, PageQuery)
        page = await self._edge.projects(caller, page=query.page, limit=query.limit)
        body = edge_answers.projects_response(page.value, number=query.page, limit=query.limit)
        return answer(request, body, rate=page.rate)

    async def create_project(self, request: Request) -> Response:
        """POST /api/v1/projects."""
        caller = await self._caller(request)
        wanted = await read_json(request, ProjectRequest)
        made = await self._edge.create_project(caller, wanted.name)
        headers = {"Location": f"{_base(request)}/api/v1/projects/{made.value.project_id}"}
        body = edge_answers.project_response(made.value)
        return answer(request, body, status=201, rate=made.rate, headers=headers)

    async def project(self, request: Request) -> Response:
        """GET /api/v1/projects/{project_id}."""
        found = await self._edge.project(await self._caller(request), request.path_params["project_id"])
        return answer(request, edge_answers.project_response(found.value), rate=found.rate)

    async def rename_project(self, request: Request) -> Response:
        """PATCH /api/v1/projects/{project_id}."""
        caller = await self._caller(request)
        wanted = await read_json(request, ProjectRequest)
        renamed = await self._edge.rename_project(caller, request.path_params["project_id"], wanted.name)
        return answer(request, edge_answers.project_response(renamed.value), rate=renamed.rate)

    async def delete_project(self, request: Request) -> Response:
        """DELETE /api/v1/projects/{project_id}."""
        project_id = request.path_params["project_id"]
        deleted = await self._edge.delete_project(await self._caller(request), project_id)
        return answer(request, DeletedResponse(id=project_id), rate=deleted.rate)

    # ---- objects and probes, open to all ----

    async def file(self, request: Request) -> Response:
        """GET /files/{key}: knowing the key is the permission."""
        found = await self._edge.open_object(request.path_params["key"])
        if isinstance(found, str):
            return RedirectResponse(found, 302, {"Cache-Control": "no-store"})
        info = found.info
        headers = {**_OF_OBJECTS, "Content-Length": str(info.size_bytes)}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=info.content_type)
        return StreamingResponse(found.chunks, headers=headers, media_type=info.content_type)

    async def health(self, request: Request) -> Response:
        """GET /health: the process answers."""
        return answer(request, EdgeHealthResponse(version=__version__))

    async def ready(self, request: Request) -> Response:
        """GET /ready: 503 if a part that requests need does not answer."""
        said = await self._edge.check()
        broken = {name: problem for name, problem in said.items() if problem is not None}
        if broken:
            raise UnavailableError("; ".join(f"{name}: {problem}" for name, problem in broken.items()))
        return answer(request, ReadyResponse(ready=True, parts=dict.fromkeys(said, "ok"), message=None))

    async def _caller(self, request: Request) -> Identity:
        return await self._edge.authenticate(request.headers.get("authorization"))


def answer(
    request: Request,
    data: BaseModel,
    *,
    status: int = 200,
    rate: RateDecision | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Put a success into the envelope."""
    # as ApiResponse.ok writes it (a test holds the two together), without validating once more what was validated
    meta = f'{{"request_id":"{request_id_of(request)}","timestamp":"{_now()}"}}'
    body = f'{{"success":true,"data":{data.model_dump_json()},"error":null,"meta":{meta}}}'
    return Response(body, status, {**(headers or {}), **_rate_headers(rate)}, media_type="application/json")


def render_error(error: ErrorAnswer, request_id: str) -> Response:
    """Put an error into the envelope."""
    envelope = ApiResponse[None].failed(error.code, error.message, request_id=request_id, timestamp=datetime.now(UTC))
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return Response(envelope.model_dump_json(), error.status, headers, media_type="application/json")


def _rate_headers(rate: RateDecision | None) -> dict[str, str]:
    if rate is None:
        return {}
    return rate_headers(rate.action, limit=rate.limit, remaining=rate.remaining, reset_after=rate.reset_after)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _base(request: Request) -> str:
    """Where the service is mounted: "" at the root of a host."""
    return request.scope.get("root_path", "").rstrip("/")


def _preferred_wait(request: Request) -> int | None:
    """Seconds of ``Prefer: wait=N``, or None; what cannot be understood is no preference."""
    found = _PREFERRED_WAIT.search(", ".join(request.headers.getlist("prefer")))
    return None if found is None else min(int(found[1]), MAX_WAIT_S)


def _etag(task: Task) -> str:
    """Weak, since the envelope around equal data differs; a task's data change only with its status or project."""
    return f'W/"{task.task_id}.{task.status}.{microseconds(task.updated_at)}.{task.project_id or 0}"'


def _is_known(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` names this tag, compared weakly."""
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    return "*" in known or etag.removeprefix("W/") in known


async def _task_responses(states: AsyncGenerator[Task, None]) -> AsyncGenerator[Event, None]:
    async with contextlib.aclosing(states):
        async for task in states:
            yield "task", edge_answers.task_response(task)

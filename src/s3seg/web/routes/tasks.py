"""Tasks of the caller: submit, poll, follow, cancel."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from s3seg.api.edge import SegmentRequest, SegmentResponse, TaskResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.tasks.model import Task, TaskStatus
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, mount_path, success
from s3seg.web.errors import rate_headers
from s3seg.web.etags import ETAG_HEADERS, IF_NONE_MATCH, NOT_MODIFIED, etag_of, not_modified
from s3seg.web.events import Event, event_stream
from s3seg.web.logs import bound_fields, remember_task
from s3seg.web.operations import Operation, ResponseSpec
from s3seg.web.validation import read_json

MAX_WAIT_S = 60
"""Longest ``Prefer: wait``; longer ones are cut to it."""

MAX_STREAM_S = 900.0
"""Longest event stream, seconds."""

_PREFERRED_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.ASCII | re.IGNORECASE)


class TaskRoutes:
    """POST /api/v1/segment and everything under /api/v1/tasks."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="POST",
                path="/api/v1/segment",
                handler=self.submit,
                action=None,  # the task store counts submits, in the transaction that debits them
                summary="Find everything that a prompt describes in a picture",
                description="Costs one credit per prompt, given back if the task ends in error.",
                body=SegmentRequest,
                headers={
                    "Idempotency-Key": "Repeats with the same key and body return the same task, debited once",
                    "Prefer": "wait=N: answer 200 with the task if it ends within N seconds (at most 60)",
                },
                responses={
                    200: enveloped(
                        TaskResponse,
                        "The task ended within the preferred wait",
                        {**RATE_HEADERS, "Location": "The task", "Preference-Applied": "The wait"},
                    ),
                    202: enveloped(
                        SegmentResponse,
                        "The task is accepted and debited",
                        {**RATE_HEADERS, "Location": "The task", "Retry-After": "Seconds to wait before polling"},
                    ),
                },
                errors=(*USER_ERRORS, "INVALID_REQUEST", "INSUFFICIENT_CREDITS"),
                tag="contract",
            ),
            Operation(
                method="GET",
                path="/api/v1/tasks/{task_id}",
                handler=self.get,
                action=Action.TASKS,
                summary="Get the status of a task",
                headers=IF_NONE_MATCH,
                path_formats=ID_FORMATS,
                responses={200: enveloped(TaskResponse, "The task", ETAG_HEADERS), 304: NOT_MODIFIED},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="contract",
            ),
            Operation(
                method="GET",
                path="/api/v1/tasks/{task_id}/events",
                handler=self.events,
                action=Action.TASKS,
                summary="Follow a task",
                description=(
                    "Server-sent events named `task`, each with a TaskResponse as its data, until the task has ended; "
                    "`error`, with code and message, if it cannot be followed any further."
                ),
                path_formats=ID_FORMATS,
                responses={
                    200: ResponseSpec(description="Events", content_type="text/event-stream", headers=RATE_HEADERS)
                },
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="POST",
                path="/api/v1/tasks/{task_id}/cancel",
                handler=self.cancel,
                action=Action.TASKS,
                summary='End an unfinished task in error "cancelled" and refund it',
                path_formats=ID_FORMATS,
                responses={200: enveloped(TaskResponse, "The task; unchanged if it had ended", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
        )

    async def submit(self, request: Request) -> Response:
        """Accept a task; wait for its end if the client prefers that."""
        body = await read_json(request, SegmentRequest)
        key = request.headers.get("idempotency-key")
        request_id = bound_fields().get("request_id")
        submitted = await self._edge.submit(request.user, body, idempotency_key=key, request_id=request_id)
        task, wait_s = submitted.task, _preferred_wait(request)
        remember_task(task.task_id)
        request.scope["s3seg.task_id"] = task.task_id
        headers = {"Location": f"{mount_path(request)}/api/v1/tasks/{task.task_id}", **rate_headers(submitted.rate)}
        if wait_s is not None and (task.ended or self._edge.can_wait(request.user)):
            headers["Preference-Applied"] = f"wait={wait_s}"
            task = await self._edge.wait(request.user, task, timeout_s=wait_s)
            if task.ended:
                return success(request, _task_response(task), headers=headers)
        headers["Retry-After"] = "1"
        return success(request, SegmentResponse(task_id=task.task_id, status="pending"), status=202, headers=headers)

    async def get(self, request: Request) -> Response:
        """Return a task, or 304 if the client knows its state."""
        task = await self._edge.tasks.get_task(request.user, request.path_params["task_id"])
        etag = etag_of(task)
        return not_modified(request, etag) or success(request, _task_response(task), headers={"ETag": etag})

    async def events(self, request: Request) -> Response:
        """Stream a task's states until it has ended."""
        states = await self._edge.events(request.user, request.path_params["task_id"], timeout_s=MAX_STREAM_S)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter: nginx must not buffer it
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        return StreamingResponse(event_stream(_events(states)), media_type="text/event-stream", headers=headers)

    async def cancel(self, request: Request) -> Response:
        """Cancel a task; one that has ended is returned as it is."""
        task = await self._edge.tasks.cancel(request.user, request.path_params["task_id"])
        return success(request, _task_response(task))


def _task_response(task: Task) -> TaskResponse:
    return TaskResponse(
        task_id=task.task_id,
        status=task.status,
        result_id=task.task_id if task.status == TaskStatus.DONE else None,
        error_message=task.error_message if task.status == TaskStatus.ERROR else None,
        created_at=task.created_at,
        updated_at=task.updated_at,
        expires_at=task.expires_at,
    )


async def _events(states: AsyncGenerator[Task, None]) -> AsyncGenerator[Event, None]:
    async with contextlib.aclosing(states):
        async for task in states:
            yield "task", _task_response(task)


def _preferred_wait(request: Request) -> int | None:
    """Seconds of ``Prefer: wait=N``; None if there is none, or it cannot be understood."""
    found = _PREFERRED_WAIT.search(", ".join(request.headers.getlist("prefer")))
    return None if found is None else min(int(found[1]), MAX_WAIT_S)

"""``ETag`` and ``If-None-Match`` for tasks and results: an unchanged one is answered 304."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from s3seg.tasks.model import Task
from s3seg.tasks.records import microseconds
from s3seg.web.envelope import RATE_HEADERS
from s3seg.web.operations import ResponseSpec

ETAG_HEADERS = {**RATE_HEADERS, "ETag": "For If-None-Match"}
"""Headers of a response that carries an ``ETag``, with their meanings."""

IF_NONE_MATCH = {"If-None-Match": "ETag of an earlier response"}
"""The request header, with its meaning."""

NOT_MODIFIED = ResponseSpec(description="Nothing has changed", content_type=None, headers=ETAG_HEADERS)
"""The 304 of the table of operations."""


def etag_of(task: Task) -> str:
    """Return a weak tag, since the envelope around equal data differs; it changes with the task's status or project."""
    return f'W/"{task.task_id}.{task.status}.{microseconds(task.updated_at)}.{task.project_id or 0}"'


def not_modified(request: Request, etag: str) -> Response | None:
    """Return the 304 if ``If-None-Match`` names the tag, compared weakly; else None."""
    sent = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if "*" in sent or etag.removeprefix("W/") in sent:
        return Response(status_code=304, headers={"ETag": etag})
    return None

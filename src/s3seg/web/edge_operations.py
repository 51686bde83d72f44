"""What the edge offers, as a table: routes and the OpenAPI document are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from s3seg.api.additions import (
    DeletedResponse,
    EdgeHealthResponse,
    MeResponse,
    PageQuery,
    ProjectRequest,
    ProjectResponse,
    ProjectsListResponse,
    ReadyResponse,
)
from s3seg.api.edge import (
    ResultDetailResponse,
    ResultsListResponse,
    ResultsQuery,
    SegmentRequest,
    SegmentResponse,
    TaskResponse,
    UploadRequest,
    UploadResponse,
)
from s3seg.api.envelope import ApiResponse
from s3seg.web.edge import EdgeRoutes
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Answer, Handler, Operation

_ALL = ("AUTH_REQUIRED", "AUTH_INVALID", "FORBIDDEN", "RATE_LIMITED", "UNAVAILABLE")
_REFUSABLE = (*_ALL, "INVALID_REQUEST")
_FOUND = (*_ALL, "NOT_FOUND")
_RATE = {
    "RateLimit-Policy": "Name, quota and window in seconds of the limit that this counted against",
    "RateLimit": "What remains of it, and seconds until more does",
}
_ETAG = {**_RATE, "ETag": "For If-None-Match"}
_UNCHANGED = Answer(description="Nothing has changed", content_type=None, headers=_ETAG)
_IF_NONE_MATCH = {"If-None-Match": "ETag of an earlier answer"}
_UUIDS = {"task_id": "uuid", "result_id": "uuid", "image_id": "uuid", "project_id": "uuid"}


def edge_operations(routes: EdgeRoutes, metrics: HttpMetrics, openapi: Handler) -> Sequence[Operation]:
    """The whole table."""
    return (*_of_the_contract(routes), *_additions(routes), *_probes(routes, metrics, openapi))


def _of_the_contract(routes: EdgeRoutes) -> Sequence[Operation]:
    return (
        Operation(
            method="POST",
            path="/api/v1/upload",
            handler=routes.upload,
            summary="Store a picture",
            description="PNG, JPEG or WebP of at most 10 MB; the type is decided from the bytes.",
            body=UploadRequest,
            body_type="multipart/form-data",
            files=("file",),
            answers={200: _enveloped(UploadResponse, "Stored", _RATE)},
            errors=(*_REFUSABLE, "FILE_TOO_LARGE"),
            tag="contract",
        ),
        Operation(
            method="POST",
            path="/api/v1/segment",
            handler=routes.segment,
            summary="Look for something in a picture",
            description="One credit a prompt, given back if the task ends in error.",
            body=SegmentRequest,
            headers={
                "Idempotency-Key": "Repeats with the same key and body give the same task, paid for once",
                "Prefer": "wait=N: answer 200 with the task if it ends within N seconds (at most 60)",
            },
            answers={
                200: _enveloped(
                    TaskResponse,
                    "Ended within the preferred wait",
                    {**_RATE, "Location": "The task", "Preference-Applied": "The wait"},
                ),
                202: _enveloped(
                    SegmentResponse,
                    "Accepted and paid for",
                    {**_RATE, "Location": "The task", "Retry-After": "Seconds after which to look"},
                ),
            },
            errors=(*_REFUSABLE, "INSUFFICIENT_CREDITS"),
            tag="contract",
        ),
        Operation(
            method="GET",
            path="/api/v1/tasks/{task_id}",
            handler=routes.task,
            summary="How a task stands",
            headers=_IF_NONE_MATCH,
            path_formats=_UUIDS,
            answers={200: _enveloped(TaskResponse, "The task", _ETAG), 304: _UNCHANGED},
            errors=_FOUND,
            tag="contract",
        ),
        Operation(
            method="GET",
            path="/api/v1/results",
            handler=routes.results,
            summary="Results of every status, newest first",
            query=ResultsQuery,
            answers={200: _enveloped(ResultsListResponse, "A page", _RATE)},
            errors=_REFUSABLE,
            tag="contract",
        ),
        Operation(
            method="GET",
            path="/api/v1/results/{result_id}",
            handler=routes.result,
            summary="One result in full",
            headers=_IF_NONE_MATCH,
            path_formats=_UUIDS,
            answers={200: _enveloped(ResultDetailResponse, "The result", _ETAG), 304: _UNCHANGED},
            errors=_FOUND,
            tag="contract",
        ),
    )


def _additions(routes: EdgeRoutes) -> Sequence[Operation]:
    return (
        Operation(
            method="GET",
            path="/api/v1/tasks/{task_id}/events",
            handler=routes.events,
            summary="Follow a task",
            description=(
                "Server-sent events named `task`, each with a TaskResponse as its data, until the task has ended; "
                "`error`, with code and message, if it cannot be followed any further."
            ),
            path_formats=_UUIDS,
            answers={
                200: Answer(description="Events", content_type="text/event-stream", headers=_RATE),
            },
            errors=_FOUND,
            tag="additions",
        ),
        Operation(
            method="POST",
            path="/api/v1/tasks/{task_id}/cancel",
            handler=routes.cancel,
            summary='End a live task in error "cancelled", refunded',
            path_formats=_UUIDS,
            answers={200: _enveloped(TaskResponse, "The task; unchanged if it had ended", _RATE)},
            errors=_FOUND,
            tag="additions",
        ),
        _deletion(routes.delete_result, "/api/v1/results/{result_id}", "Forget a result and its objects"),
        _deletion(routes.delete_image, "/api/v1/images/{image_id}", "Forget an image; its results stay"),
        Operation(
            method="GET",
            path="/api/v1/me",
            handler=routes.me,
            summary="Tier, credits and limits",
            answers={200: _enveloped(MeResponse, "The account", _RATE)},
            errors=_ALL,
            tag="additions",
        ),
        Operation(
            method="GET",
            path="/api/v1/projects",
            handler=routes.projects,
            summary="Projects, newest first",
            query=PageQuery,
            answers={200: _enveloped(ProjectsListResponse, "A page", _RATE)},
            errors=_REFUSABLE,
            tag="additions",
        ),
        Operation(
            method="POST",
            path="/api/v1/projects",
            handler=routes.create_project,
            summary="Make a project",
            body=ProjectRequest,
            answers={201: _enveloped(ProjectResponse, "Made", {**_RATE, "Location": "The project"})},
            errors=_REFUSABLE,
            tag="additions",
        ),
        Operation(
            method="GET",
            path="/api/v1/projects/{project_id}",
            handler=routes.project,
            summary="One project",
            path_formats=_UUIDS,
            answers={200: _enveloped(ProjectResponse, "The project", _RATE)},
            errors=_FOUND,
            tag="additions",
        ),
        Operation(
            method="PATCH",
            path="/api/v1/projects/{project_id}",
            handler=routes.rename_project,
            summary="Rename a project",
            body=ProjectRequest,
            path_formats=_UUIDS,
            answers={200: _enveloped(ProjectResponse, "Renamed", _RATE)},
            errors=(*_FOUND, "INVALID_REQUEST"),
            tag="additions",
        ),
        _deletion(routes.delete_project, "/api/v1/projects/{project_id}", "Forget a project; what is in it stays"),
    )


def _probes(routes: EdgeRoutes, metrics: HttpMetrics, openapi: Handler) -> Sequence[Operation]:
    return (
        Operation(
            method="GET",
            path="/files/{key:path}",
            handler=routes.file,
            summary="An image, a mask or a list of instances, for whoever knows its key",
            answers={
                200: Answer(description="The object", content_type="application/octet-stream"),
                302: Answer(
                    description="Where a private store serves it for a while",
                    content_type=None,
                    headers={"Location": "A presigned URL"},
                ),
            },
            errors=("NOT_FOUND", "UNAVAILABLE"),
            secured=False,
            tag="objects",
        ),
        Operation(
            method="GET",
            path="/health",
            handler=routes.health,
            summary="The process answers",
            answers={200: _enveloped(EdgeHealthResponse, "It does")},
            secured=False,
            tag="operation",
        ),
        Operation(
            method="GET",
            path="/ready",
            handler=routes.ready,
            summary="Requests can be served",
            answers={200: _enveloped(ReadyResponse, "They can")},
            errors=("UNAVAILABLE",),
            secured=False,
            tag="operation",
        ),
        Operation(
            method="GET",
            path="/metrics",
            handler=metrics.endpoint,
            summary="Prometheus metrics",
            answers={200: Answer(description="Metrics", content_type="text/plain")},
            secured=False,
            tag="operation",
        ),
        Operation(
            method="GET",
            path="/openapi.json",
            handler=openapi,
            summary="This document",
            answers={200: Answer(description="OpenAPI 3.1")},
            secured=False,
            tag="operation",
        ),
    )


def _deletion(handler: Handler, path: str, summary: str) -> Operation:
    return Operation(
        method="DELETE",
        path=path,
        handler=handler,
        summary=summary,
        path_formats=_UUIDS,
        answers={200: _enveloped(DeletedResponse, "Forgotten", _RATE)},
        errors=_FOUND,
        tag="additions",
    )


def _enveloped(model: type[BaseModel], description: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(description=description, model=ApiResponse[model], headers=headers or {})

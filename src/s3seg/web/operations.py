"""The table of operations of a service, from which its routes and its OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s3seg.tasks.limits import Action
from s3seg.web.errors import ErrorResponse
from s3seg.web.keys import KEY_HEADER

Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request; raises errors of `s3seg.errors`."""

RenderError = Callable[[ErrorResponse, str], Response]
"""Writes an error as a body; the second argument is the request's id."""

_EVERY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSpec:
    """One kind of success of an operation.

    Attributes:
        description: What it means.
        model: Model of the JSON body; None for a body that is not JSON, or no body.
        content_type: Type of the body; None for no body.
        headers: Headers of the response, with their meanings.
    """

    description: str
    model: type[BaseModel] | None = None
    content_type: str | None = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path.

    Attributes:
        method: Such as ``POST``. A ``GET`` answers ``HEAD`` too.
        path: Starlette's template, such as ``/api/v1/tasks/{task_id}``.
        handler: Answers the requests.
        summary: One line of documentation.
        responses: Successes by status.
        action: Rate limit that a request counts against before its body is read; None if the guard counts nothing.
        description: Further documentation.
        errors: The contract's error codes that it can answer with, beside ``INTERNAL_ERROR``.
        body: Model of the request's body.
        body_type: Content type of the request's body.
        files: Names of binary parts, where the body is ``multipart/form-data``.
        query: Model of the query parameters.
        headers: Request headers that it reads, with their meanings.
        path_formats: Formats of path parameters, such as ``{"task_id": "uuid"}``.
        secured: Whether the guard requires credentials.
        key_headers: Header fields that may carry the key, in services whose credentials are keys; see `ApiKeys.check`.
        checks_key: Whether the handler checks the key itself, because it may be elsewhere in the request.
        render_error: Writes its errors, where they have another body than those of the service.
        tag: Group in the documentation.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    responses: Mapping[int, ResponseSpec]
    action: Action | None = None
    description: str = ""
    errors: tuple[str, ...] = ()
    body: type[BaseModel] | None = None
    body_type: str = "application/json"
    files: tuple[str, ...] = ()
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    path_formats: Mapping[str, str] = field(default_factory=dict)
    secured: bool = True
    key_headers: tuple[str, ...] = (KEY_HEADER,)
    checks_key: bool = False
    render_error: RenderError | None = None
    tag: str = ""


Guard = Callable[[Request, Operation], Awaitable[Response]]
"""Checks credentials and limits of a request as its operation demands, then calls the operation's handler."""


def routes_of(operations: Sequence[Operation], guard: Guard | None = None) -> list[Route]:
    """Make one route per path, so that a 405 names every method that the path has."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method.upper()] = operation
    return [_route(path, by_method, guard) for path, by_method in by_path.items()]


def route_label(scope: Mapping[str, Any]) -> str:
    """Return the path template of a request's route, for metrics and logs; ``unknown`` if no route matched."""
    return scope.get("s3seg.route", "unknown")


def _route(path: str, by_method: Mapping[str, Operation], guard: Guard | None) -> Route:
    allowed = ", ".join(sorted([*by_method, *(["HEAD"] if "GET" in by_method else [])]))

    async def dispatch(request: Request) -> Response:
        request.scope["s3seg.route"] = path
        operation = by_method.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            raise HTTPException(405, headers={"Allow": allowed})
        request.scope["s3seg.render_error"] = operation.render_error
        if guard is None:
            return await operation.handler(request)
        return await guard(request, operation)

    return Route(path, dispatch, methods=_EVERY_METHOD, name=path)

"""What a service offers, as data: routes and the OpenAPI document are made from the same table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One kind of success.

    Attributes:
        description: What it means.
        model: Of its JSON body; None for a body that is no JSON, or none at all.
        content_type: Of its body; None for an answer without one.
        headers: Headers that it carries, with what they mean.
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
        handler: What answers; raises errors of `s3seg.errors`.
        summary: A line for people.
        description: More, where there is more to say.
        answers: Successes by status.
        errors: The contract's error codes that it can answer with, beside ``INTERNAL_ERROR``.
        body: Model of the request's body.
        body_type: Content type of the request's body.
        files: Names of binary parts, where the body is ``multipart/form-data``.
        query: Model of the query parameters.
        headers: Request headers that it reads, with what they mean.
        path_formats: Formats of path parameters, such as ``{"task_id": "uuid"}``.
        secured: Whether credentials are needed.
        tag: The group it is shown under.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    errors: tuple[str, ...] = ()
    body: type[BaseModel] | None = None
    body_type: str = "application/json"
    files: tuple[str, ...] = ()
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    path_formats: Mapping[str, str] = field(default_factory=dict)
    secured: bool = True
    tag: str = ""


def routes_of(operations: Sequence[Operation]) -> list[Route]:
    """One route a path, so that a 405 names every method that the path has."""
    by_path: dict[str, dict[str, Handler]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method.upper()] = operation.handler
    return [_route(path, handlers) for path, handlers in by_path.items()]


def route_label(scope: Mapping[str, Any]) -> str:
    """The template of the path that a request went to, for metrics and logs; ``unknown`` if there is none."""
    return scope.get("s3seg.route", "unknown")


def _route(path: str, handlers: Mapping[str, Handler]) -> Route:
    methods = [*handlers, *(["HEAD"] if "GET" in handlers else [])]

    async def dispatch(request: Request) -> Response:
        request.scope["s3seg.route"] = path
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        return await handler(request)

    every = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
    return Route(path, dispatch, methods=every, name=path)

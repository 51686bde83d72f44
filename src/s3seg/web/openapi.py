"""OpenAPI 3.1, generated from the table of operations and the wire models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.codes import ERROR_CODES
from s3seg.web.envelope import mount_path
from s3seg.web.operations import Handler, Operation, ResponseSpec
from s3seg.web.static import StaticContent

_MAX_KEPT = 16  # documents of different paths: a proxy, or any client that is trusted as one, says the path
_Schemas = Mapping[Any, dict[str, Any]]  # by model and mode
_SECURED_BY = "credentials"
REQUEST_ID_HEADER = {"X-Request-Id": {"description": "UUID of the request", "schema": {"type": "string"}}}


def openapi_document(
    operations: Sequence[Operation],
    *,
    title: str,
    version: str,
    security_scheme: Mapping[str, Any],
    error_model: type[BaseModel],
    description: str = "",
) -> dict[str, Any]:
    """Return the OpenAPI document of a service.

    Args:
        operations: The table of its operations.
        title: Name of the service.
        version: Version of the software.
        security_scheme: The OpenAPI security scheme of secured operations.
        error_model: Model of every error body.
        description: Markdown for people.
    """
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(error_model, "serialization")]
    for operation in operations:
        if operation.body is not None:
            wanted.append((operation.body, "validation"))
        for response in operation.responses.values():
            if response.model is not None:
                wanted.append((response.model, "serialization"))
    schemas, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, path, schemas, error_model)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {_SECURED_BY: dict(security_scheme)},
        },
    }


def openapi_handler(make: Callable[[], Mapping[str, Any]]) -> Handler:
    """Return what answers GET /openapi.json.

    Anybody may ask for the document as often as they like, so it is made once, for the first request, and kept.

    Args:
        make: Makes the document; the path that the service is mounted or proxied at is added as its server.
    """

    @lru_cache(maxsize=1)
    def document() -> bytes:
        return json.dumps(make(), ensure_ascii=False, separators=(",", ":")).encode()

    @lru_cache(maxsize=_MAX_KEPT)
    def at(path: str) -> StaticContent:
        body = document()
        if path:
            servers = json.dumps([{"url": path}])
            body = b'{"servers":' + servers.encode() + b"," + body[1:]
        return StaticContent(body, "application/json", {"Vary": "X-Forwarded-Prefix"})

    async def openapi(request: Request) -> Response:
        return at(mount_path(request)).answer(request)

    return openapi


def _operation(operation: Operation, path: str, schemas: _Schemas, error_model: type[BaseModel]) -> dict[str, Any]:
    responses = {str(status): _success(response, schemas) for status, response in operation.responses.items()}
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*operation.errors, "INTERNAL_ERROR")):
        by_status.setdefault(ERROR_CODES[code].status, []).append(code)
    error_schema = schemas[error_model, "serialization"]
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(f"`{code}`: {ERROR_CODES[code].description}" for code in codes),
            "headers": REQUEST_ID_HEADER,
            "content": {"application/json": {"schema": error_schema}},
        }
    described: dict[str, Any] = {
        "operationId": _operation_id(operation, path),
        "summary": operation.summary,
        "parameters": _parameters(operation, path),
        "responses": responses,
        "security": [{_SECURED_BY: []}] if operation.secured else [],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.tag:
        described["tags"] = [operation.tag]
    if operation.body is not None or operation.files:
        described["requestBody"] = {"required": True, "content": {operation.body_type: _body(operation, schemas)}}
    return described


def _operation_id(operation: Operation, path: str) -> str:
    return re.sub(r"\W+", "_", f"{operation.method.lower()}{path}").strip("_")


def _success(response: ResponseSpec, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": response.description,
        "headers": {
            **REQUEST_ID_HEADER,
            **{
                name: {"description": meaning, "schema": {"type": "string"}}
                for name, meaning in response.headers.items()
            },
        },
    }
    if response.model is not None:
        described["content"] = {response.content_type: {"schema": schemas[response.model, "serialization"]}}
    elif response.content_type is not None and response.content_type != "application/json":
        described["content"] = {response.content_type: {}}
    elif response.content_type == "application/json":
        described["content"] = {"application/json": {"schema": {}}}
    return described


def _body(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    schema: dict[str, Any] = {} if operation.body is None else schemas[operation.body, "validation"]
    if not operation.files:
        return {"schema": schema}
    files = {
        "type": "object",
        "properties": {
            name: {"type": "string", "contentMediaType": "application/octet-stream"} for name in operation.files
        },
        "required": list(operation.files),
    }
    return {"schema": {"allOf": [schema, files]} if schema else files}


def _parameters(operation: Operation, path: str) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = []
    for name in re.findall(r"\{(\w+)\}", path):
        schema = {"type": "string", "minLength": 1}
        if name in operation.path_formats:
            schema["format"] = operation.path_formats[name]
        described.append({"name": name, "in": "path", "required": True, "schema": schema})
    if operation.query is not None:
        query = operation.query.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, schema in query.get("properties", {}).items():
            required = name in query.get("required", ())
            described.append({"name": name, "in": "query", "required": required, "schema": schema})
    for name, meaning in operation.headers.items():
        described.append(
            {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        )
    return described

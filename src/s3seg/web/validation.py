"""Reading JSON bodies and query parameters: limited while they stream, validated into wire models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from s3seg.api.fields import NO_DATA_URL, explain
from s3seg.errors import InvalidRequestError

MAX_JSON_BYTES = 64 * 1024
"""Longest JSON body: 16 prompts of 500 characters fit, even if every character is escaped."""

_M = TypeVar("_M", bound=BaseModel)


async def read_json(request: Request, model: type[_M], *, max_bytes: int = MAX_JSON_BYTES) -> _M:
    """Read the body as a model.

    Raises:
        InvalidRequestError: The body is not JSON, too long, or does not fit the model; names the field.
    """
    check_json_type(request)
    require_uncompressed(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            remedy = f"; {NO_DATA_URL}" if b'"data:' in body else ""
            raise InvalidRequestError(f"the body is longer than {max_bytes} bytes{remedy}")
    return parse_json(bytes(body), model)


def check_json_type(request: Request) -> None:
    """Raise InvalidRequestError unless the request says that its body is JSON, or says nothing."""
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise InvalidRequestError("the body must be JSON; send Content-Type: application/json")


def parse_json(body: bytes, model: type[_M]) -> _M:
    """Parse JSON as a model. Long bodies take a while, so they are parsed in a thread.

    Raises:
        InvalidRequestError: It is not JSON, or does not fit the model; names the field.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the body is not JSON") from None
    validated = _validated(model, value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # valid in JSON's escapes, but neither in UTF-8 nor in databases
        raise InvalidRequestError("the body contains a lone surrogate (such as \\ud800), which is not text") from None
    return validated


def require_uncompressed(request: Request) -> None:
    """Raise `InvalidRequestError` if the body is compressed."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise InvalidRequestError(f"the body must not be compressed, but Content-Encoding is {coding[:40]!r}")


def read_query(request: Request, model: type[_M]) -> _M:
    """Read the query parameters as a model.

    Raises:
        InvalidRequestError: A parameter is given twice, or does not fit the model; names it.
    """
    return _validated(model, _once_each(request.query_params.multi_items()))


def _once_each(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in items:
        if name in values:
            raise InvalidRequestError(f"{name[:40]!r} is given more than once")
        values[name] = value
    return values


def _validated(model: type[_M], value: object) -> _M:
    try:
        return model.model_validate(value)
    except ValidationError as err:
        raise InvalidRequestError(explain(err)) from None

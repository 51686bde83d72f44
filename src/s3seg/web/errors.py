"""Error responses: the status, code, message and headers that a client gets for an exception."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException

from s3seg.api.codes import ERROR_CODES, code_of
from s3seg.errors import InvalidRequestError, RateLimitedError, UnavailableError
from s3seg.tasks.limits import RATE_WINDOW_S
from s3seg.tasks.rate_limit import RateDecision

REFUSAL = "s3seg.refusal"
"""Key of the scope under which the application that answers requests refused by the server finds the error."""

_FIXED_MESSAGES = {
    "INTERNAL_ERROR": "internal error; the server's log has the details under this request id",
    "MODEL_NOT_LOADED": "the model is not loaded",
}
_STARLETTE_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "FILE_TOO_LARGE"}


class RefusedRequestError(InvalidRequestError):
    """A request is refused for how it was sent, whatever it asks for.

    Attributes:
        status: 400 for one that is malformed, 408 for one that arrives too slowly, 431 for one with too large a head.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """An error as a client gets it; each service writes it as its own body.

    Attributes:
        status: HTTP status.
        code: One of the contract's codes.
        message: For people; without secrets, paths or stack traces.
        headers: Headers of the response, such as ``Retry-After``.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def error_response(error: Exception) -> ErrorResponse:
    """Return the error response for an exception; a bare ``INTERNAL_ERROR`` unless it is an `S3segError`.

    ``WWW-Authenticate`` is left to the services, whose authentication schemes differ.
    """
    if isinstance(error, HTTPException):
        return _from_starlette(error)
    code = code_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, RateLimitedError | UnavailableError):
        headers["Retry-After"] = retry_after(error.retry_after)
    if isinstance(error, RateLimitedError) and error.action:
        headers |= _rate_headers(error.action, limit=error.limit, remaining=0, reset_after=error.retry_after)
    message = _FIXED_MESSAGES.get(code) or str(error)
    status = error.status if isinstance(error, RefusedRequestError) else ERROR_CODES[code].status
    return ErrorResponse(status=status, code=code, message=message, headers=headers)


def retry_after(seconds: float) -> str:
    """Format seconds for ``Retry-After``: whole, rounded up, at least 1."""
    return str(max(1, math.ceil(seconds)))


def rate_headers(rate: RateDecision | None) -> dict[str, str]:
    """Return ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10); none if not counted."""
    if rate is None:
        return {}
    return _rate_headers(rate.action, limit=rate.limit, remaining=rate.remaining, reset_after=rate.reset_after)


def _rate_headers(action: str, *, limit: int, remaining: int, reset_after: float) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"{action}";q={limit};w={RATE_WINDOW_S}',
        "RateLimit": f'"{action}";r={remaining};t={math.ceil(reset_after)}',
    }


def _from_starlette(error: HTTPException) -> ErrorResponse:
    code = _STARLETTE_CODES.get(error.status_code, "INVALID_REQUEST" if error.status_code < 500 else "INTERNAL_ERROR")
    message = {404: "no such path", 405: "this path does not support this method"}.get(
        error.status_code, ERROR_CODES[code].description
    )
    return ErrorResponse(status=ERROR_CODES[code].status, code=code, message=message, headers=dict(error.headers or {}))

"""From an exception to what a client is told: status, code, a sentence, headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException

from s3seg.api.codes import ERROR_CODES, code_of
from s3seg.errors import RateLimitedError, UnavailableError
from s3seg.tasks.limits import RATE_WINDOW_S

_OURS_TO_KNOW = {
    "INTERNAL_ERROR": "an error of the server; the log has the details under this request's id",
    "MODEL_NOT_LOADED": "the model is not loaded",
}
_OF_STARLETTE = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "FILE_TOO_LARGE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """An error as a client sees it; each service puts it into its own body.

    Attributes:
        status: HTTP status.
        code: One of the contract's codes.
        message: A sentence for people, without secrets, paths or traces.
        headers: Headers that belong to it, such as ``Retry-After``.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def error_answer(error: Exception) -> ErrorAnswer:
    """What a client is told of an exception. Anything that is not ours becomes a bare ``INTERNAL_ERROR``.

    ``WWW-Authenticate`` is not among the headers: what to ask for is the service's business.
    """
    if isinstance(error, HTTPException):
        return _of_starlette(error)
    code = code_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, RateLimitedError | UnavailableError):
        headers["Retry-After"] = retry_after(error.retry_after)
    if isinstance(error, RateLimitedError) and error.action:
        headers |= rate_headers(error.action, limit=error.limit, remaining=0, reset_after=error.retry_after)
    message = _OURS_TO_KNOW.get(code) or str(error)
    return ErrorAnswer(status=ERROR_CODES[code].status, code=code, message=message, headers=headers)


def retry_after(seconds: float) -> str:
    """Seconds as ``Retry-After`` wants them: whole, rounded up, at least 1."""
    return str(max(1, math.ceil(seconds)))


def rate_headers(action: str, *, limit: int, remaining: int, reset_after: float) -> dict[str, str]:
    """``RateLimit-Policy`` and ``RateLimit``, as draft-ietf-httpapi-ratelimit-headers-10 has them.

    Args:
        action: Name of the policy.
        limit: Requests in any 60 seconds.
        remaining: How many of them are left now.
        reset_after: Seconds until one of those counted leaves the window.
    """
    return {
        "RateLimit-Policy": f'"{action}";q={limit};w={RATE_WINDOW_S}',
        "RateLimit": f'"{action}";r={remaining};t={math.ceil(reset_after)}',
    }


def _of_starlette(error: HTTPException) -> ErrorAnswer:
    code = _OF_STARLETTE.get(error.status_code, "INVALID_REQUEST" if error.status_code < 500 else "INTERNAL_ERROR")
    message = {404: "there is nothing at this path", 405: "the path exists, but not with this method"}.get(
        error.status_code, ERROR_CODES[code].description
    )
    return ErrorAnswer(status=ERROR_CODES[code].status, code=code, message=message, headers=dict(error.headers or {}))

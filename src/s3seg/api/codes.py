"""The table of error codes: the meaning and the HTTP status of each."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from s3seg.errors import S3segError


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the contract's table of errors.

    Attributes:
        code: Stable code of an error body.
        status: HTTP status of the response.
        description: Meaning, for people.
    """

    code: str
    status: int
    description: str


_TABLE = (
    ErrorCode("AUTH_REQUIRED", 401, "No credentials were sent"),
    ErrorCode("AUTH_INVALID", 401, "The credentials are expired or not valid"),
    ErrorCode("FORBIDDEN", 403, "The credentials are valid, but do not allow this"),
    ErrorCode("NOT_FOUND", 404, "The caller has no such resource"),
    ErrorCode("INVALID_REQUEST", 400, "A parameter or the body is not valid"),
    ErrorCode("FILE_TOO_LARGE", 413, "The file is larger than 10 MB"),
    ErrorCode("INSUFFICIENT_CREDITS", 402, "The account has fewer credits than the task costs"),
    ErrorCode("RATE_LIMITED", 429, "The tier's limit of requests per minute is reached"),
    ErrorCode("MODEL_NOT_LOADED", 503, "The model is not loaded"),
    ErrorCode("INFERENCE_FAILED", 500, "Inference failed"),
    ErrorCode("INTERNAL_ERROR", 500, "Internal server error"),
    # Additions to the contract:
    ErrorCode("METHOD_NOT_ALLOWED", 405, "The path does not support this method"),
    ErrorCode("UNAVAILABLE", 503, "The service is over capacity, or a part that it depends on does not answer"),
)

ERROR_CODES = MappingProxyType({row.code: row for row in _TABLE})
"""Every code that an error body may carry, in the order of the contract."""


def code_of(error: BaseException) -> str:
    """Return the contract's code for an exception; ``INTERNAL_ERROR`` for one that is not an `S3segError`."""
    return error.code if isinstance(error, S3segError) else "INTERNAL_ERROR"

"""The one table of error codes: what each means and which HTTP status carries it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from s3seg.errors import S3segError


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the contract's table of errors.

    Attributes:
        code: The stable word in an error body.
        status: The HTTP status it travels with.
        description: What it means, for people.
    """

    code: str
    status: int
    description: str


_TABLE = (
    ErrorCode("AUTH_REQUIRED", 401, "No credentials were sent"),
    ErrorCode("AUTH_INVALID", 401, "The credentials are expired or not valid"),
    ErrorCode("FORBIDDEN", 403, "Valid credentials of a kind that may not do this"),
    ErrorCode("NOT_FOUND", 404, "No such resource for this caller"),
    ErrorCode("INVALID_REQUEST", 400, "A parameter or body that cannot be used"),
    ErrorCode("FILE_TOO_LARGE", 413, "The file is larger than 10 MB"),
    ErrorCode("INSUFFICIENT_CREDITS", 402, "Fewer credits than the task costs"),
    ErrorCode("RATE_LIMITED", 429, "More requests in a minute than the tier allows"),
    ErrorCode("MODEL_NOT_LOADED", 503, "The model is not loaded"),
    ErrorCode("INFERENCE_FAILED", 500, "Inference failed"),
    ErrorCode("INTERNAL_ERROR", 500, "An error of the server"),
    # The original has no word for these two:
    ErrorCode("METHOD_NOT_ALLOWED", 405, "The path exists, but not with this method"),
    ErrorCode("UNAVAILABLE", 503, "Over capacity, or a part that we stand on does not answer"),
)

ERROR_CODES = MappingProxyType({row.code: row for row in _TABLE})
"""Every code that an error body may carry, in the order of the contract."""


def status_of(error: BaseException) -> int:
    """The HTTP status that an exception becomes; 500 for anything that is not ours."""
    return ERROR_CODES[code_of(error)].status


def code_of(error: BaseException) -> str:
    """The contract's code for an exception; ``INTERNAL_ERROR`` for anything that is not ours."""
    return error.code if isinstance(error, S3segError) else "INTERNAL_ERROR"

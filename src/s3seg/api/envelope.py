"""The envelope of every edge response, and the error body of the gpu service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from s3seg.api.fields import ResponseModel, UuidStr

_T = TypeVar("_T")


class ErrorBody(ResponseModel):
    """An error: a stable code and a message for users."""

    code: Annotated[str, Field(description="One of the contract's error codes", examples=["NOT_FOUND"])]
    message: Annotated[str, Field(description="For people; may change", examples=["No such task"])]


class Meta(ResponseModel):
    """Data about the response itself."""

    request_id: Annotated[UuidStr, Field(description="UUID v4, also in the X-Request-Id header")]
    timestamp: Annotated[datetime, Field(description="When the response was made, UTC, ISO 8601")]


class ApiResponse(ResponseModel, Generic[_T]):
    """``{success, data, error, meta}``: exactly one of ``data`` and ``error`` is not null."""

    success: Annotated[bool, Field(description="Whether data, rather than error, is present")]
    data: _T | None
    error: ErrorBody | None
    meta: Meta

    @classmethod
    def ok(cls, data: _T, *, request_id: str, timestamp: datetime) -> ApiResponse[_T]:
        """Wrap a success."""
        return cls(success=True, data=data, error=None, meta=Meta(request_id=request_id, timestamp=timestamp))

    @classmethod
    def failed(cls, code: str, message: str, *, request_id: str, timestamp: datetime) -> ApiResponse[_T]:
        """Wrap an error."""
        return cls(
            success=False,
            data=None,
            error=ErrorBody(code=code, message=message),
            meta=Meta(request_id=request_id, timestamp=timestamp),
        )


class GpuErrorResponse(ResponseModel):
    """Error body of the gpu service, which has no envelope."""

    error: ErrorBody

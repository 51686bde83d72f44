"""Requests and responses of the edge that the original contract does not have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from s3seg.api.fields import Omissible, OmissibleUuid, QueryInt, RequestModel, ResponseModel, UuidStr, check_text
from s3seg.tasks.limits import DEFAULT_PAGE_SIZE, MAX_NAME_CHARS, MAX_PAGE_SIZE, Action, Tier


class LimitsResponse(ResponseModel):
    """Requests allowed in any 60 seconds."""

    upload: int
    segment: int
    results: int
    tasks: int

    @classmethod
    def of(cls, limits: dict[Action, int]) -> LimitsResponse:
        """Build it from one tier's row of the rate limits."""
        return cls(**{action.value: count for action, count in limits.items()})


class MeResponse(ResponseModel):
    """GET /api/v1/me: the caller's account."""

    user_id: UuidStr
    tier: Tier
    credits: Annotated[int, Field(ge=0, description="One credit pays for one prompt")]
    limits: LimitsResponse


def _check_name(name: str) -> str:
    return check_text(name, what="a name", limit=MAX_NAME_CHARS)


class ProjectRequest(RequestModel):
    """Body of POST /api/v1/projects and PATCH /api/v1/projects/{id}."""

    name: Annotated[
        str,
        AfterValidator(_check_name),
        Field(json_schema_extra={"minLength": 1, "maxLength": MAX_NAME_CHARS}),
    ]


class ProjectResponse(ResponseModel):
    """A project, which groups images and results."""

    id: UuidStr
    name: str
    created_at: datetime
    updated_at: datetime


class PageQuery(RequestModel):
    """Query parameters of GET /api/v1/projects."""

    page: Annotated[QueryInt, Field(ge=1, le=10_000_000)] = 1
    limit: Annotated[QueryInt, Field(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE


class ProjectsListResponse(ResponseModel):
    """A page of projects, newest first."""

    projects: list[ProjectResponse]
    total: Annotated[int, Field(ge=0)]
    page: Annotated[int, Field(ge=1)]
    limit: Annotated[int, Field(ge=1)]


class BeginUploadRequest(RequestModel):
    """Body of POST /api/v1/uploads: a picture that will be sent straight to the storage."""

    content_type: Annotated[Literal["image/png", "image/jpeg", "image/webp"], Field(description="Of the picture")]
    size_bytes: Annotated[int, Field(ge=1, description="At most 10 MB; exactly as many bytes must be sent")]


class BeginUploadResponse(ResponseModel):
    """Where to send a picture: ``PUT url`` with these headers, then POST /api/v1/uploads/{upload_id}/complete."""

    upload_id: str
    method: Literal["PUT"] = "PUT"
    url: Annotated[
        str,
        Field(description="Where to send the picture; authorises this one upload by itself"),
    ]
    headers: Annotated[dict[str, str], Field(description="Headers that the request must have, as they are")]
    expires_at: datetime


class CompleteUploadRequest(RequestModel):
    """Body of POST /api/v1/uploads/{upload_id}/complete; may be empty."""

    project_id: Annotated[OmissibleUuid, Field(description="Project that the image belongs to")]


class DeletedResponse(ResponseModel):
    """Response to every DELETE."""

    id: UuidStr
    deleted: Literal[True] = True


class EdgeHealthResponse(ResponseModel):
    """GET /health of the edge: the process answers."""

    status: Literal["ok"] = "ok"
    version: str
    direct_uploads: Annotated[bool, Field(description="Whether POST /api/v1/uploads can be used")]


class ReadyResponse(ResponseModel):
    """GET /ready: whether requests can be served, and the state of each part."""

    ready: bool
    parts: Annotated[dict[str, str], Field(examples=[{"objects": "ok", "tasks": "database is locked"}])]
    message: Annotated[Omissible[str], Field(description="What does not work, in words")]

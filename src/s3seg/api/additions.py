"""Requests and responses of the edge that the original contract does not have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from s3seg.api.fields import (
    ExpiresIn,
    ImageUrl,
    Omissible,
    OmissibleUuid,
    PromptStr,
    QueryInt,
    RequestModel,
    ResponseModel,
    UuidStr,
    check_text,
)
from s3seg.tasks.concepts import MAX_CONCEPT_BOXES, MAX_CONCEPT_IMAGES, ConceptDefinition, ConceptExample
from s3seg.tasks.limits import DEFAULT_PAGE_SIZE, MAX_NAME_CHARS, MAX_PAGE_SIZE, Action, Tier
from s3seg.tasks.records import Concept


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
    retention_s: Annotated[
        Omissible[Annotated[int, Field(ge=1)]],
        Field(description="Seconds after which images and results are removed at the latest; absent if never"),
    ]


class SignInResponse(ResponseModel):
    """GET /api/v1/auth: how users of this service get their tokens. It has no secrets."""

    kind: Annotated[
        Literal["supabase", "token"],
        Field(description="supabase: sign in to the project below; token: the operator hands out tokens"),
    ]
    supabase_url: Annotated[Omissible[str], Field(description="The Supabase project")]
    supabase_key: Annotated[Omissible[str], Field(description="Its publishable (or legacy anon) key")]
    realtime: Annotated[bool, Field(description="Whether Supabase Realtime tells users when their tasks change")] = (
        False
    )


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


_Side = Annotated[float, Field(allow_inf_nan=False)]
_Box = tuple[_Side, _Side, _Side, _Side]


class ConceptExampleModel(RequestModel):
    """What boxes show on one of the caller's images; xyxy in its pixels."""

    image_url: Annotated[ImageUrl, Field(description="image_url of one of the caller's uploads")]
    boxes: Annotated[
        tuple[_Box, ...],
        Field(min_length=1, max_length=MAX_CONCEPT_BOXES, description="Around examples of what to find"),
    ]
    negative_boxes: Annotated[
        tuple[_Box, ...], Field(max_length=MAX_CONCEPT_BOXES, description="Around what not to find")
    ] = ()


class ConceptRequest(RequestModel):
    """Body of POST /api/v1/concepts."""

    name: Annotated[
        str,
        AfterValidator(_check_name),
        Field(description="What results call it", json_schema_extra={"minLength": 1, "maxLength": MAX_NAME_CHARS}),
    ]
    words: Annotated[Omissible[PromptStr], Field(description="Words that are searched too, 1 to 500 characters")]
    examples: Annotated[tuple[ConceptExampleModel, ...], Field(min_length=1, max_length=MAX_CONCEPT_IMAGES)]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self.definition()
        return self

    def definition(self) -> ConceptDefinition:
        """Return it as the domain has it."""
        examples = (ConceptExample(one.image_url, one.boxes, one.negative_boxes) for one in self.examples)
        return ConceptDefinition(self.words, tuple(examples))


class ConceptResponse(ResponseModel):
    """A concept: examples of what to find, to be used in /segment."""

    id: UuidStr
    name: str
    words: Omissible[str]
    examples: list[ConceptExampleModel]
    created_at: datetime

    @classmethod
    def of(cls, concept: Concept) -> ConceptResponse:
        """Build it from what a store keeps."""
        definition = ConceptDefinition.from_dict(concept.definition)
        return cls(
            id=concept.concept_id,
            name=concept.name,
            words=definition.words,
            examples=[
                ConceptExampleModel(image_url=one.image_url, boxes=one.boxes, negative_boxes=one.negative_boxes)
                for one in definition.examples
            ],
            created_at=concept.created_at,
        )


class ConceptsListResponse(ResponseModel):
    """All concepts of the caller, newest first."""

    concepts: list[ConceptResponse]


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
    expires_in_s: ExpiresIn


class ExportQuery(RequestModel):
    """Query parameters of GET /api/v1/me/export."""

    after: Annotated[
        Omissible[Annotated[str, Field(max_length=200)]],
        Field(description="Cursor of the last item that arrived whole, to get what comes after it"),
    ]


class DeleteAccountQuery(RequestModel):
    """Query parameters of DELETE /api/v1/me."""

    confirm: Annotated[UuidStr, Field(description="The caller's user_id, as in GET /api/v1/me")]


class DeletedAccountResponse(ResponseModel):
    """DELETE /api/v1/me: the account is closed for ever, and what it had is being removed."""

    id: UuidStr
    deleted: Literal[True] = True
    deleted_at: datetime
    kept: Annotated[list[str], Field(description="What stays, and why")]


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

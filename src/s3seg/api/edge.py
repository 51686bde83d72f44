"""Requests of the edge, and its responses as they stand in the envelope's ``data``.

Models and fields marked *addition* extend the original contract; the rest is the contract to the letter.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from s3seg.api.fields import (
    ExpiresIn,
    ImageUrl,
    Omissible,
    OmissibleTile,
    OmissibleUuid,
    PromptStr,
    QueryInt,
    RequestModel,
    ResponseModel,
    UuidStr,
)
from s3seg.tasks.clicks import MAX_POINTS, Clicks, click_texts
from s3seg.tasks.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, MAX_PROMPTS
from s3seg.tasks.model import TaskStatus
from s3seg.tasks.visual import visual_of_clicks, visual_of_tiles

ExpiresAt = Annotated[
    Omissible[datetime],
    Field(description="Addition: when the result is removed; absent until the task has ended, and if it is kept"),
]


def _any_required(*fields: str) -> dict[str, Any]:
    """Return a schema that requires one of these fields or more.

    Below ``allOf``, because generators of clients give up on an object with ``anyOf``: openapi-typescript lets it be
    anything then, and openapi-generator lets the body be left out.
    """
    return {"allOf": [{"anyOf": [{"required": [field]} for field in fields]}]}


class UploadRequest(RequestModel):
    """``multipart/form-data`` of POST /api/v1/upload.

    Beside these fields it has the part ``file``: PNG, JPEG or WebP, at most 10 MB.
    """

    project_id: Annotated[OmissibleUuid, Field(description="Project that the image belongs to")]
    expires_in_s: ExpiresIn


class UploadResponse(ResponseModel):
    """A stored image, which can be segmented."""

    image_id: UuidStr
    image_url: Annotated[str, Field(description="Stable URL of the image, to be passed to /segment")]
    size_bytes: Annotated[int, Field(ge=1)]
    content_type: Annotated[str, Field(description="Decided from the bytes", examples=["image/png"])]
    expires_at: Annotated[Omissible[datetime], Field(description="Addition: when it is removed; absent if never")]


_Coordinate = Annotated[float, Field(allow_inf_nan=False)]


class ClickedObject(RequestModel):
    """Addition: points and a box, in pixels, that show one object; at least one point or the box."""

    model_config = ConfigDict(json_schema_extra=_any_required("points", "box"))

    points: Annotated[
        tuple[tuple[_Coordinate, _Coordinate], ...], Field(max_length=MAX_POINTS, description="x, y of each point")
    ] = ()
    labels: Annotated[
        Omissible[Annotated[tuple[Literal[0, 1], ...], Field(max_length=MAX_POINTS)]],
        Field(description="For each point: 1 on the object, 0 on what does not belong to it; absent if all are on it"),
    ]
    box: Annotated[
        Omissible[tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate]],
        Field(description="x1, y1, x2, y2 around the object"),
    ]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self.clicks()
        return self

    def clicks(self) -> Clicks:
        """Return it as the domain has it."""
        return Clicks(self.points, self.labels, self.box)


class SegmentRequest(RequestModel):
    """Ask for the masks of one prompt (``text_prompt``), or by one of the additions.

    These are several prompts (``text_prompts``), clicks on objects (``clicks``), and a concept (``concept_id``). Words
    can be looked for in tiles too (``tile``).
    """

    model_config = ConfigDict(
        json_schema_extra={
            **_any_required("text_prompt", "text_prompts", "clicks", "concept_id"),
            "examples": [
                {"image_url": "https://cdn.example.com/users/u/images/i.png", "text_prompt": "cat"},
                {
                    "image_url": "https://cdn.example.com/users/u/images/i.png",
                    "text_prompts": ["cat", "dog"],
                },
                {
                    "image_url": "https://cdn.example.com/users/u/images/i.png",
                    "clicks": [{"points": [[120, 80], [300, 40]], "labels": [1, 0]}],
                },
            ],
        }
    )

    image_url: Annotated[ImageUrl, Field(description="image_url of one of the caller's uploads")]
    text_prompt: Annotated[Omissible[PromptStr], Field(description="What to look for, 1 to 500 characters")]
    text_prompts: Annotated[
        Omissible[Annotated[tuple[PromptStr, ...], Field(min_length=1, max_length=MAX_PROMPTS)]],
        Field(description="Addition: several prompts in one task, 1 credit each; duplicates count once"),
    ]
    clicks: Annotated[
        Omissible[Annotated[tuple[ClickedObject, ...], Field(min_length=1, max_length=MAX_PROMPTS)]],
        Field(description="Addition: objects shown by clicks instead of words, 1 credit each; duplicates count once"),
    ]
    concept_id: Annotated[
        OmissibleUuid, Field(description="Addition: one of the caller's concepts instead of words, 1 credit")
    ]
    tile: Annotated[
        OmissibleTile,
        Field(
            description='Addition: look for the words also in overlapping tiles, whose side has so many pixels; "auto" '
            "is the side of the model's input"
        ),
    ]
    project_id: Annotated[OmissibleUuid, Field(description="Project that the result belongs to")]
    expires_in_s: ExpiresIn

    @model_validator(mode="after")
    def _exactly_one_kind_of_prompt(self) -> Self:
        kinds = (self.text_prompt, self.text_prompts, self.clicks, self.concept_id)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("send either text_prompt or text_prompts, or clicks or concept_id")
        if self.tile is not None and (self.clicks is not None or self.concept_id is not None):
            raise ValueError("tile goes with text_prompt or text_prompts: a tile does not show what clicks show")
        return self

    @property
    def objects(self) -> tuple[Clicks, ...]:
        """The objects that are shown by clicks, in order, each once; none for a request of words."""
        return tuple(dict.fromkeys(one.clicks() for one in self.clicks or ()))

    @property
    def visual(self) -> dict[str, Any] | None:
        """What the task asks for beside words; see `s3seg.tasks.visual`."""
        if self.clicks:
            return visual_of_clicks(self.objects)
        return None if self.tile is None else visual_of_tiles(self.tile)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of the task, in order, each once; none for a concept. Clicks are described."""
        if self.clicks:
            return click_texts(self.objects)
        prompts = self.text_prompts or ((self.text_prompt,) if self.text_prompt else ())
        return tuple(dict.fromkeys(prompts))


class SegmentResponse(ResponseModel):
    """The task was accepted; poll /tasks/{task_id}."""

    task_id: UuidStr
    status: Literal["pending"]


class TaskResponse(ResponseModel):
    """The status of a task."""

    task_id: UuidStr
    status: TaskStatus
    result_id: Annotated[Omissible[UuidStr], Field(description="When done; equals task_id")]
    error_message: Annotated[Omissible[str], Field(description="When in error; the credits were refunded")]
    created_at: datetime
    updated_at: datetime
    expires_at: ExpiresAt


class ResultsQuery(RequestModel):
    """Query parameters of GET /api/v1/results."""

    project_id: Annotated[OmissibleUuid, Field(description="Only this project's results")]
    page: Annotated[QueryInt, Field(ge=1, le=10_000_000)] = 1
    limit: Annotated[QueryInt, Field(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE
    cursor: Annotated[
        Omissible[Annotated[str, Field(max_length=200)]],
        Field(description="Addition: next_cursor of the previous page; page is then ignored"),
    ]


class ResultSummary(ResponseModel):
    """One result in a list."""

    id: UuidStr
    source_image_url: str
    mask_image_url: Annotated[str, Field(description='"" until done')]
    text_prompt: Annotated[str, Field(description='Several prompts are joined with ", "')]
    status: TaskStatus
    created_at: datetime
    expires_at: ExpiresAt


class ResultsListResponse(ResponseModel):
    """A page of results, newest first, of every status."""

    results: list[ResultSummary]
    total: Annotated[int, Field(ge=0, description="Results over all pages")]
    page: Annotated[int, Field(ge=1)]
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE)]
    next_cursor: Annotated[Omissible[str], Field(description="Addition: absent on the last page")]


class ResultMetadata(ResponseModel):
    """How the result was made. Zeros and ``""`` until done; may have further fields."""

    model_config = ConfigDict(extra="allow")

    inference_time_ms: Annotated[float, Field(ge=0)] = 0
    confidence: Annotated[float, Field(ge=0, le=1, description="Highest instance score, or 0")] = 0
    model_version: str = ""
    instances_url: Annotated[
        Omissible[str], Field(description="Addition: JSON of every instance above 0.1 (box, score, RLE)")
    ]
    prompts: Annotated[
        Omissible[list[dict[str, Any]]],
        Field(description="Addition: the PredictResponse of each prompt of a task of several"),
    ]


class ResultDetailResponse(ResponseModel):
    """One result in full."""

    id: UuidStr
    project_id: UuidStr | None
    source_image_url: str
    mask_image_url: Annotated[
        str,
        Field(description='PNG label map of the image\'s size: 0 background, k the k-th instance; "" until done'),
    ]
    text_prompt: str
    labels: Annotated[list[str], Field(description="Prompts that were found; empty until done")]
    metadata: ResultMetadata
    status: TaskStatus
    created_at: datetime
    updated_at: datetime
    expires_at: ExpiresAt

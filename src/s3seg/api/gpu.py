"""Requests and responses of the gpu service, which has no envelope."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from s3seg.api.fields import ImageUrl, Omissible, OmissibleTile, PromptStr, RequestModel, ResponseModel
from s3seg.tasks.limits import MAX_PROMPTS

_TILE = "Addition: the tile of the task, as sent to /segment, if it has one; need not be sent"


class HealthResponse(ResponseModel):
    """GET /health: the state of the model and of its device."""

    status: Annotated[str, Field(examples=["ok"])]
    model_loaded: bool
    gpu_available: bool
    gpu_name: str | None
    vram_used_mb: float | None
    vram_total_mb: float | None


class PredictRequest(RequestModel):
    """POST /api/v1/predict. Must match the task in the database, else 400."""

    image_url: Annotated[ImageUrl, Field(description="source_image_url of the task")]
    text_prompt: Annotated[str, Field(min_length=1, description="text_prompt of the task")]
    user_id: Annotated[str, Field(description="Owner of the task")]
    task_id: str
    clicks: Annotated[
        Omissible[Annotated[list[dict[str, Any]], Field(max_length=MAX_PROMPTS)]],
        Field(description="Addition: the clicks of the task, as sent to /segment, if it has any; need not be sent"),
    ]
    tile: Annotated[OmissibleTile, Field(description=_TILE)]


class PredictResponse(ResponseModel):
    """The result of one prompt."""

    task_id: str
    mask_url: Annotated[str, Field(description="PNG label map, stored before the response is sent")]
    labels: Annotated[list[str], Field(description="The prompt, if it was found")]
    inference_time_ms: Annotated[float, Field(ge=0)]
    confidence: Annotated[float, Field(ge=0, le=1, description="Highest instance score, or 0")]


class BatchPredictRequest(RequestModel):
    """POST /api/v1/predict/batch: one image, several prompts, one task."""

    image_url: ImageUrl
    prompts: Annotated[list[PromptStr], Field(min_length=1, max_length=MAX_PROMPTS)]
    user_id: str
    task_id: str
    tile: Annotated[OmissibleTile, Field(description=_TILE)]


class BatchPredictResponse(ResponseModel):
    """One response per prompt, in the order of the request."""

    task_id: str
    results: list[PredictResponse]
    total_inference_time_ms: Annotated[float, Field(ge=0)]


class ModelInfoResponse(ResponseModel):
    """GET /api/v1/model/info: measured from the loaded model."""

    model_name: Annotated[str, Field(examples=["SAM3"])]
    model_version: Annotated[str, Field(examples=["1.0"])]
    parameters: Annotated[int, Field(ge=0, examples=[848_000_000])]
    weights_size_gb: Annotated[float, Field(ge=0, examples=[3.4])]
    device: Annotated[str, Field(examples=["cuda:0"])]
    dtype: Annotated[str, Field(examples=["bfloat16"])]

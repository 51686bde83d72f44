"""Predictions of the gpu service: the contract's inference API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s3seg.api.edge import ClickedObject
from s3seg.api.gpu import (
    BatchPredictRequest,
    BatchPredictResponse,
    ModelInfoResponse,
    PredictRequest,
    PredictResponse,
)
from s3seg.errors import InferenceError, InvalidRequestError
from s3seg.inference.engine import Engine
from s3seg.tasks.model import Task, TaskStatus
from s3seg.tasks.prompts import normalize_prompt
from s3seg.tasks.visual import clicks_of, tile_of
from s3seg.web.disconnects import until_disconnect
from s3seg.web.logs import remember_task
from s3seg.web.operations import Operation, ResponseSpec
from s3seg.web.validation import read_json

_PREDICTION_ERRORS = (
    "INVALID_REQUEST",
    "AUTH_REQUIRED",
    "AUTH_INVALID",
    "NOT_FOUND",
    "INFERENCE_FAILED",
    "MODEL_NOT_LOADED",
    "UNAVAILABLE",
)


class PredictionRoutes:
    """GET /api/v1/model/info, POST /api/v1/predict and /api/v1/predict/batch."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/model/info",
                handler=self.model_info,
                summary="Get the model that is loaded",
                responses={
                    200: ResponseSpec(description="The model, as measured once it was loaded", model=ModelInfoResponse)
                },
                errors=("AUTH_REQUIRED", "AUTH_INVALID", "MODEL_NOT_LOADED"),
                tag="inference",
            ),
            Operation(
                method="POST",
                path="/api/v1/predict",
                handler=self.predict,
                summary="Process a task now, or wait for the worker that does",
                description="Safe to repeat: a task that is done is answered with its stored result.",
                body=PredictRequest,
                responses={200: ResponseSpec(description="The task is done", model=PredictResponse)},
                errors=_PREDICTION_ERRORS,
                tag="inference",
            ),
            Operation(
                method="POST",
                path="/api/v1/predict/batch",
                handler=self.predict_batch,
                summary="Process a task of several prompts, with a response for each",
                description="The image is encoded once. One response per prompt, in order, each with its own mask.",
                body=BatchPredictRequest,
                responses={200: ResponseSpec(description="The task is done", model=BatchPredictResponse)},
                errors=_PREDICTION_ERRORS,
                tag="inference",
            ),
        )

    async def model_info(self, request: Request) -> Response:
        """Describe the loaded model."""
        network = self._engine.network
        return JSONResponse(
            ModelInfoResponse(
                model_name=network.model.name,
                model_version=network.model.version,
                parameters=network.parameters,
                weights_size_gb=network.weights_bytes / 1e9,
                device=", ".join(one.model.device for one in self._engine.networks),
                dtype=network.model.dtype,
            ).model_dump()
        )

    async def predict(self, request: Request) -> Response:
        """Process a task and answer with its combined result."""
        body = await read_json(request, PredictRequest)
        task = await self._find(request, body)
        if normalize_prompt(body.text_prompt) != normalize_prompt(task.text_prompt):
            raise InvalidRequestError("text_prompt: not the prompt of this task")
        if body.clicks is not None and not _same_clicks(body.clicks, task):
            raise InvalidRequestError("clicks: not the clicks of this task")
        task = await self._process(request, task)
        return JSONResponse(_response(task).model_dump())

    async def predict_batch(self, request: Request) -> Response:
        """Process a task and answer with the result of each prompt."""
        body = await read_json(request, BatchPredictRequest)
        task = await self._find(request, body)
        own = [normalize_prompt(prompt) for prompt in task.prompts]
        if list(dict.fromkeys(body.prompts)) != list(dict.fromkeys(own)):
            raise InvalidRequestError("prompts: not the prompts of this task")
        task = await self._process(request, task)
        each = task.metadata.get("prompts")
        of_task = [PredictResponse(**one) for one in each] if each else [_response(task)]
        results = [of_task[own.index(prompt)] for prompt in body.prompts]  # a duplicate is one prompt of the task
        response = BatchPredictResponse(
            task_id=task.task_id, results=results, total_inference_time_ms=task.metadata["inference_time_ms"]
        )
        return JSONResponse(response.model_dump())

    async def _find(self, request: Request, body: PredictRequest | BatchPredictRequest) -> Task:
        task = await self._engine.queue.get_task(body.task_id)
        remember_task(task.task_id)
        request.scope["s3seg.task_id"] = task.task_id
        if body.user_id != task.user_id:
            raise InvalidRequestError("user_id: not the owner of this task")
        if body.image_url != task.source_image_url:
            raise InvalidRequestError("image_url: not the image of this task")
        if body.tile is not None and body.tile != tile_of(task.visual):
            raise InvalidRequestError("tile: not the tile of this task")
        return task

    async def _process(self, request: Request, task: Task) -> Task:
        """Return the task once it is done; raise `InferenceError` if it ended in error."""
        if not task.ended:
            self._engine.network  # noqa: B018 (raises if the model is not loaded)
            self._engine.worker.require_room()
            task = await until_disconnect(request, self._engine.worker.predict(task.task_id))
        if task.status != TaskStatus.DONE:
            raise InferenceError(task.error_message or "the task ended without a result")
        return task


def _same_clicks(sent: list[dict[str, Any]], task: Task) -> bool:
    try:
        objects = tuple(dict.fromkeys(ClickedObject.model_validate(one).clicks() for one in sent))
    except ValidationError:
        return False
    return objects == clicks_of(task.visual)


def _response(task: Task) -> PredictResponse:
    return PredictResponse(
        task_id=task.task_id,
        mask_url=task.mask_image_url,
        labels=list(task.labels),
        inference_time_ms=task.metadata["inference_time_ms"],
        confidence=task.metadata["confidence"],
    )

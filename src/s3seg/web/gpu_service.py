"""The gpu service over HTTP: the contract's inference API, probes, metrics, and its own description."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Lifespan

from s3seg.api.additions import ReadyResponse
from s3seg.api.envelope import ErrorBody, GpuErrorResponse
from s3seg.api.gpu import (
    BatchPredictRequest,
    BatchPredictResponse,
    HealthResponse,
    ModelInfoResponse,
    PredictRequest,
    PredictResponse,
)
from s3seg.errors import AuthInvalidError, AuthRequiredError, InferenceError, InvalidRequestError
from s3seg.inference.engine import Engine, ModelState
from s3seg.tasks.model import Task, TaskStatus
from s3seg.version import __version__
from s3seg.web.bodies import read_json
from s3seg.web.errors import ErrorAnswer
from s3seg.web.gpu_metrics import EngineGauges
from s3seg.web.metrics import HttpMetrics
from s3seg.web.openapi import openapi_document
from s3seg.web.operations import Answer, Operation
from s3seg.web.service import build_service

_T = TypeVar("_T")
_PREDICTION_ERRORS = (
    "INVALID_REQUEST",
    "AUTH_REQUIRED",
    "AUTH_INVALID",
    "NOT_FOUND",
    "INFERENCE_FAILED",
    "MODEL_NOT_LOADED",
    "UNAVAILABLE",
)
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def gpu_service(
    engine: Engine,
    *,
    keys: Sequence[str],
    metrics: HttpMetrics,
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Make the application.

    Args:
        engine: What works.
        keys: Accepted values of ``X-API-Key``; none at all leaves the routes open.
        metrics: Where requests are counted, and the engine's state is shown.
        lifespan: What begins and ends with it.
    """
    metrics.registry.register(EngineGauges(engine))
    service = _GpuService(engine, keys, metrics)
    return build_service(
        service.operations,
        render_error=_render_error,
        metrics=metrics,
        lifespan=lifespan,
        accept_request_id=True,
    )


class _GpuService:
    def __init__(self, engine: Engine, keys: Sequence[str], metrics: HttpMetrics) -> None:
        self._engine = engine
        self._keys = [key.encode() for key in keys]
        self.operations = (
            Operation(
                method="GET",
                path="/health",
                handler=self.health,
                summary="Whether the process lives, and what is loaded",
                answers={200: Answer(description="It lives", model=HealthResponse)},
                secured=False,
                tag="state",
            ),
            Operation(
                method="GET",
                path="/ready",
                handler=self.ready,
                summary="Whether requests can be served",
                answers={
                    200: Answer(description="They can", model=ReadyResponse),
                    503: Answer(description="Not now; says why", model=ReadyResponse),
                },
                secured=False,
                tag="state",
            ),
            Operation(
                method="GET",
                path="/metrics",
                handler=metrics.endpoint,
                summary="Measurements for Prometheus",
                answers={200: Answer(description="Text exposition format", content_type=_PROMETHEUS)},
                secured=False,
                tag="state",
            ),
            Operation(
                method="GET",
                path="/openapi.json",
                handler=self.openapi,
                summary="This description",
                answers={200: Answer(description="OpenAPI 3.1")},
                secured=False,
                tag="state",
            ),
            Operation(
                method="GET",
                path="/api/v1/model/info",
                handler=self.model_info,
                summary="Which model is loaded",
                answers={200: Answer(description="Measured from what is loaded", model=ModelInfoResponse)},
                errors=("AUTH_REQUIRED", "AUTH_INVALID", "MODEL_NOT_LOADED"),
                tag="inference",
            ),
            Operation(
                method="POST",
                path="/api/v1/predict",
                handler=self.predict,
                summary="Work on a task now, or wait for who does",
                description="Harmless to repeat: a task that is done answers with its stored result.",
                body=PredictRequest,
                answers={200: Answer(description="The task is done", model=PredictResponse)},
                errors=_PREDICTION_ERRORS,
                tag="inference",
            ),
            Operation(
                method="POST",
                path="/api/v1/predict/batch",
                handler=self.predict_batch,
                summary="The same for every prompt of a task by itself",
                description="The image is encoded once. One response per prompt, in order, each with its own mask.",
                body=BatchPredictRequest,
                answers={200: Answer(description="The task is done", model=BatchPredictResponse)},
                errors=_PREDICTION_ERRORS,
                tag="inference",
            ),
        )

    async def health(self, request: Request) -> Response:
        engine = self._engine
        loaded = engine.state is ModelState.READY
        device = engine.network.device_status() if loaded else None
        return JSONResponse(
            HealthResponse(
                status=engine.state.value,
                model_loaded=loaded,
                gpu_available=device is not None and device.gpu,
                gpu_name=None if device is None else device.name,
                vram_used_mb=None if device is None else device.memory_used_mb,
                vram_total_mb=None if device is None else device.memory_total_mb,
            ).model_dump()
        )

    async def ready(self, request: Request) -> Response:
        parts = dict(await self._engine.check())
        if self._engine.worker.draining:
            parts["worker"] = "stopping"
        missing = [f"{name}: {said}" for name, said in parts.items() if said != "ok"]
        body = ReadyResponse(ready=not missing, parts=parts, message="; ".join(missing) or None)
        return JSONResponse(body.model_dump(), 503 if missing else 200)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(
            openapi_document(
                self.operations,
                title="s3seg gpu service",
                version=__version__,
                description="Inference only; called by the edge, never by users.",
                security_scheme={"type": "apiKey", "in": "header", "name": "X-API-Key"},
                error_model=GpuErrorResponse,
            )
        )

    async def model_info(self, request: Request) -> Response:
        self._authorize(request)
        network = self._engine.network
        return JSONResponse(
            ModelInfoResponse(
                model_name=network.model.name,
                model_version=network.model.version,
                parameters=network.parameters,
                weights_size_gb=network.weights_bytes / 1e9,
                device=network.model.device,
                dtype=network.model.dtype,
            ).model_dump()
        )

    async def predict(self, request: Request) -> Response:
        self._authorize(request)
        body = await read_json(request, PredictRequest)
        task = await self._find(body)
        if body.text_prompt != task.text_prompt:
            raise InvalidRequestError("text_prompt: not the prompt of this task")
        return JSONResponse(_response(await self._done(request, task)).model_dump())

    async def predict_batch(self, request: Request) -> Response:
        self._authorize(request)
        body = await read_json(request, BatchPredictRequest)
        task = await self._find(body)
        if tuple(body.prompts) != task.prompts:
            raise InvalidRequestError("prompts: not the prompts of this task")
        task = await self._done(request, task)
        each = task.metadata.get("prompts")
        results = [PredictResponse(**one) for one in each] if each else [_response(task)]
        answer = BatchPredictResponse(
            task_id=task.task_id, results=results, total_inference_time_ms=task.metadata["inference_time_ms"]
        )
        return JSONResponse(answer.model_dump())

    def _authorize(self, request: Request) -> None:
        if not self._keys:
            return
        sent = request.headers.get("x-api-key")
        if not sent:
            raise AuthRequiredError("send the key in X-API-Key")
        raw = sent.encode("latin-1")  # the bytes as they came
        # every key is compared, whichever fits, so that time tells nothing
        if not sum(hmac.compare_digest(raw, key) for key in self._keys):
            raise AuthInvalidError("the key in X-API-Key is not valid")

    async def _find(self, body: PredictRequest | BatchPredictRequest) -> Task:
        task = await self._engine.queue.get_task(body.task_id)
        if body.user_id != task.user_id:
            raise InvalidRequestError("user_id: not the owner of this task")
        if body.image_url != task.source_image_url:
            raise InvalidRequestError("image_url: not the image of this task")
        return task

    async def _done(self, request: Request, task: Task) -> Task:
        if not task.ended:
            self._engine.network  # noqa: B018 (raises if the model is not loaded)
            self._engine.worker.require_room()
            task = await _unless_client_goes(request, self._engine.worker.predict(task.task_id))
        if task.status != TaskStatus.DONE:
            raise InferenceError(task.error_message or "the task ended without a result")
        return task


def _response(task: Task) -> PredictResponse:
    return PredictResponse(
        task_id=task.task_id,
        mask_url=task.mask_image_url,
        labels=list(task.labels),
        inference_time_ms=task.metadata["inference_time_ms"],
        confidence=task.metadata["confidence"],
    )


async def _unless_client_goes(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What ``work`` gives; it is cancelled if the client closes the connection."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for one in (working, gone):
            one.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _render_error(answer: ErrorAnswer, request_id: str) -> Response:
    body = GpuErrorResponse(error=ErrorBody(code=answer.code, message=answer.message))
    return JSONResponse(body.model_dump(), answer.status)

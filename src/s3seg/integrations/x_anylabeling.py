"""The protocol of X-AnyLabeling's remote server, written from its documentation: a model, and predictions as shapes.

The routes are below ``/x-anylabeling``, which is part of the address that is entered in the application. Errors have
the documented body, but the status that says what happened: the application shows only errors that have one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s3seg.api.fields import RequestModel
from s3seg.errors import ImageDecodeError, InvalidRequestError, NotFoundError
from s3seg.integrations.door import (
    ERRORS,
    KEY_HEADERS,
    Door,
    EncodedPicture,
    check_number_of_prompts,
    checked_prompt,
    ok,
)
from s3seg.results.polygons import Ring, joined_rings
from s3seg.results.segmentation import Segmentation
from s3seg.results.simplify import simplify_ring
from s3seg.web.errors import ErrorResponse
from s3seg.web.operations import Operation

MODEL_ID = "s3seg"
_PREFIX = "/x-anylabeling"
_SEPARATORS = re.compile(r"[.,]")
_DEFAULT_EPSILON = 0.001  # of the length of an outline
_CODES = {
    "AUTH_REQUIRED": "UNAUTHORIZED",
    "AUTH_INVALID": "UNAUTHORIZED",
    "FILE_TOO_LARGE": "INVALID_IMAGE",
    "INVALID_REQUEST": "INVALID_REQUEST",
    "NOT_FOUND": "MODEL_NOT_FOUND",
    "UNAVAILABLE": "QUEUE_FULL",
}
"""The codes of that protocol; every other one is ``INFERENCE_ERROR``."""


class Params(RequestModel):
    """Parameters of a prediction."""

    text_prompt: str = Field("", description="What to look for; several things are separated by commas or full stops")
    conf_threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    epsilon_factor: Annotated[
        float, Field(ge=0, le=1, description="How coarse polygons are: a share of the length of their outline")
    ] = _DEFAULT_EPSILON


class PredictBody(RequestModel):
    """POST /v1/predict."""

    model: str
    image: EncodedPicture
    params: Params = Params(text_prompt="")


class XAnyLabelingRoutes:
    """GET /health, /v1/models and /v1/models/{model_id}/info, and POST /v1/predict, below /x-anylabeling."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        shared: dict[str, Any] = {
            "key_headers": ("Token", *KEY_HEADERS),
            "render_error": _render_error,
            "tag": "x-anylabeling",
        }
        missing = ("AUTH_REQUIRED", "AUTH_INVALID", "MODEL_NOT_LOADED")
        return (
            Operation(
                method="GET",
                path=f"{_PREFIX}/health",
                handler=self.health,
                summary="Check that the process answers",
                responses=ok("It answers"),
                secured=False,
                tag="x-anylabeling",
            ),
            Operation(
                method="GET",
                path=f"{_PREFIX}/v1/models",
                handler=self.models,
                summary="List the one model and what its panel shows",
                responses=ok("The model"),
                errors=missing,
                **shared,
            ),
            Operation(
                method="GET",
                path=f"{_PREFIX}/v1/models/{{model_id}}/info",
                handler=self.model,
                summary="Get the model",
                responses=ok("The model"),
                errors=(*missing, "NOT_FOUND"),
                **shared,
            ),
            Operation(
                method="POST",
                path=f"{_PREFIX}/v1/predict",
                handler=self.predict,
                summary="Find what the text names, as polygons",
                description="Nothing is stored. The key is in the header Token; the application calls it the API key.",
                body=PredictBody,
                responses=ok("The shapes"),
                errors=(*ERRORS, "NOT_FOUND"),
                **shared,
            ),
        )

    async def health(self, request: Request) -> Response:
        """Say that the process answers."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return JSONResponse({"status": "healthy", "models_loaded": int(self._door.loaded), "timestamp": now})

    async def models(self, request: Request) -> Response:
        """List the model."""
        return _success({MODEL_ID: self._described()})

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        _check_model(request.path_params["model_id"])
        return _success({"model_id": MODEL_ID, **self._described()})

    async def predict(self, request: Request) -> Response:
        """Find what the text names."""
        async with self._door.place(request):
            body = await self._door.read_json(request, PredictBody)
            _check_model(body.model)
            texts = [text for text in (part.strip() for part in _SEPARATORS.split(body.params.text_prompt)) if text]
            if not texts:
                raise InvalidRequestError(
                    "params.text_prompt: it is empty; type what to look for, such as cat, and press Send"
                )
            check_number_of_prompts(len(texts))
            prompts = [checked_prompt(text, [], []) for text in texts]
            thresholds = [body.params.conf_threshold] * len(prompts)
            try:
                results = await self._door.segment(request, body.image, prompts, thresholds=thresholds)
            except ImageDecodeError as err:  # elsewhere an invalid request; this protocol has a code of its own
                return _failure("INVALID_IMAGE", str(err), 400)
            shapes = await asyncio.to_thread(_shapes, results, body.params.epsilon_factor)
        return _success({"shapes": shapes, "description": ""})

    def _described(self) -> dict[str, Any]:
        return {
            "display_name": f"s3seg: {self._door.model}",
            "batch_processing_mode": "text_prompt",
            "widgets": [
                {"name": "edit_text", "value": None},
                {"name": "button_send", "value": None},
                {"name": "input_conf", "value": None},
                {"name": "edit_conf", "value": round(self._door.threshold, 2)},
                {"name": "mask_fineness_slider", "value": 50},
                {"name": "toggle_preserve_existing_annotations", "value": False},
            ],
            "params": {"conf_threshold": self._door.threshold, "epsilon_factor": _DEFAULT_EPSILON},
        }


def _check_model(model_id: str) -> None:
    if model_id != MODEL_ID:
        raise NotFoundError(f"there is no model {model_id!r:.60}; the only one is {MODEL_ID!r}")


def _shapes(results: Sequence[Segmentation], epsilon: float) -> list[dict[str, Any]]:
    """Return a polygon for each part of each mask; the parts of an instance are in one group."""
    shapes: list[dict[str, Any]] = []
    group = 0
    for result in results:
        for instance in result:
            polygons = instance.polygons()
            group += len(polygons) > 1
            for polygon in polygons:
                path = joined_rings([simplify_ring(ring, epsilon * _length(ring)) for ring in polygon])
                shapes.append(
                    {
                        "label": result.prompt,
                        "shape_type": "polygon",
                        "points": [*path.tolist(), path[0].tolist()],  # the application closes it at its first point
                        "score": instance.score,
                        "attributes": {},
                        "description": None,
                        "difficult": False,
                        "direction": 0,
                        "flags": None,
                        "group_id": group if len(polygons) > 1 else None,
                        "kie_linking": [],
                    }
                )
    return shapes


def _length(ring: Ring) -> float:
    return float(np.linalg.norm(np.roll(ring, -1, axis=0) - ring, axis=1).sum())


def _success(data: dict[str, Any]) -> Response:
    return JSONResponse({"success": True, "data": data})


def _render_error(error: ErrorResponse, request_id: str) -> Response:
    code = _CODES.get(error.code, "INFERENCE_ERROR")
    return _failure(code, error.message, error.status)


def _failure(code: str, message: str, status: int) -> Response:
    return JSONResponse({"success": False, "error": {"code": code, "message": message}}, status)

"""Roboflow's routes for SAM 3, so that code written for its inference server runs against this service.

``/sam3/concept_segment`` finds every instance of words and example boxes, ``/sam3/visual_segment`` the object that a
box or clicks show.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s3seg.edge.concurrency import ConcurrencyLimiter, UserShares
from s3seg.errors import InvalidRequestError
from s3seg.inference.prompts import BoxedPrompt
from s3seg.integrations.door import (
    ERRORS,
    KEY_HEADERS,
    Door,
    check_number_of_prompts,
    checked_prompt,
    ok,
)
from s3seg.integrations.roboflow_models import (
    AnyRequest,
    ConceptPrompt,
    ConceptRequest,
    ConceptResponse,
    Echo,
    MaskFormat,
    Prediction,
    PromptResult,
    VisualPrompt,
    VisualPrompts,
    VisualRequest,
    VisualResponse,
)
from s3seg.results import masks
from s3seg.results.polygons import joined_rings
from s3seg.results.segmentation import Instance, Segmentation
from s3seg.tasks.clicks import Clicks
from s3seg.web.errors import ErrorResponse
from s3seg.web.keys import has_key
from s3seg.web.operations import Operation

_KEYLESS_AT_ONCE = 2  # requests whose key is in the body, which is read before it is checked
_MAX_COMPARED = 500  # instances
_R = TypeVar("_R", bound=AnyRequest)


class RoboflowRoutes:
    """POST /sam3/concept_segment and /sam3/visual_segment."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._keyless = ConcurrencyLimiter(
            UserShares(_KEYLESS_AT_ONCE, per_user=_KEYLESS_AT_ONCE),
            wait_s=10.0,
            name="requests without a key in a header arrive",
        )

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="POST",
                path="/sam3/concept_segment",
                handler=self.concept,
                summary="Segment every instance of words and example boxes",
                body=ConceptRequest,
                responses=ok("Every instance of each prompt", ConceptResponse),
                **_SHARED,
            ),
            Operation(
                method="POST",
                path="/sam3/visual_segment",
                handler=self.visual,
                summary="Segment the object that each box, or clicks, show",
                body=VisualRequest,
                responses=ok("The object of each prompt", VisualResponse),
                **_SHARED,
            ),
        )

    async def concept(self, request: Request) -> Response:
        """Segment every instance of the prompts."""
        start = time.perf_counter()
        async with self._body(request, ConceptRequest) as body:
            check_number_of_prompts(len(body.prompts))
            prompts = [_concept(prompt) for prompt in body.prompts]
            thresholds = [
                body.output_prob_thresh if one.output_prob_thresh is None else one.output_prob_thresh
                for one in body.prompts
            ]
            results = await self._door.segment(request, body.image.value, prompts, thresholds=thresholds)
            if body.nms_iou_threshold is not None:
                results = await asyncio.to_thread(_without_duplicates, results, body.nms_iou_threshold)
            predictions = await asyncio.to_thread(
                lambda: [[_prediction(one, body.format) for one in result] for result in results]
            )
        told = [
            PromptResult(
                prompt_index=index,
                echo=Echo(
                    prompt_index=index,
                    type="visual" if prompt.boxes else "text",
                    text=prompt.text,
                    num_boxes=len(prompt.boxes or ()),
                ),
                predictions=found,
            )
            for index, (prompt, found) in enumerate(zip(body.prompts, predictions, strict=True))
        ]
        return JSONResponse(ConceptResponse(prompt_results=told, time=time.perf_counter() - start).model_dump())

    async def visual(self, request: Request) -> Response:
        """Segment the object that each prompt shows: by clicks if any prompt has some, else the instance in the box."""
        start = time.perf_counter()
        async with self._body(request, VisualRequest) as body:
            asked = body.prompts.prompts if isinstance(body.prompts, VisualPrompts) else body.prompts
            check_number_of_prompts(len(asked))
            if any(prompt.points for prompt in asked):
                objects = await self._clicked(request, body.image.value, asked)
            else:
                objects = await self._in_boxes(request, body.image.value, asked)
            predictions = await asyncio.to_thread(lambda: [_prediction(found, body.format) for found in objects])
        return JSONResponse(VisualResponse(predictions=predictions, time=time.perf_counter() - start).model_dump())

    async def _clicked(
        self, request: Request, picture: bytes, prompts: Sequence[VisualPrompt]
    ) -> list[Instance | None]:
        results = await self._door.click(request, picture, [_clicks(prompt) for prompt in prompts])
        return [result[0] if len(result) else None for result in results]

    async def _in_boxes(
        self, request: Request, picture: bytes, prompts: Sequence[VisualPrompt]
    ) -> list[Instance | None]:
        boxes = [_box(prompt) for prompt in prompts]
        shown = [checked_prompt(None, [box], [True]) for box in boxes]
        results = await self._door.segment(request, picture, shown, thresholds=[0.0] * len(shown))
        return [_best_in(box, result) for box, result in zip(boxes, results, strict=True)]

    @asynccontextmanager
    async def _body(self, request: Request, model: type[_R]) -> AsyncIterator[_R]:
        """Check the key, take a place, and read the body.

        Roboflow's clients send the key in the body unless they are told otherwise, so that the body has to be read
        first. Such requests have few places of their own.
        """
        door, in_query = self._door, request.query_params.get("api_key")
        if in_query or has_key(request, KEY_HEADERS) or not door.keys.needed:
            door.keys.check(request, KEY_HEADERS, otherwise=in_query)
            async with door.place(request):
                yield await door.read_json(request, model)
            return
        async with self._keyless.slot("" if request.client is None else request.client.host):
            body = await door.read_json(request, model)
            door.keys.check(request, KEY_HEADERS, otherwise=body.api_key)
        async with door.place(request):
            yield body


def _render_error(error: ErrorResponse, request_id: str) -> Response:
    """Write an error with the ``message`` that Roboflow's clients show, beside the body of the service."""
    body = {"message": error.message, "error": {"code": error.code, "message": error.message}}
    return JSONResponse(body, error.status)


_SHARED: dict[str, Any] = {
    "description": "Nothing is stored. The key is a bearer token, or `api_key` in the query or the body.",
    "errors": ERRORS,
    "checks_key": True,
    "render_error": _render_error,
    "tag": "roboflow",
}


def _concept(prompt: ConceptPrompt) -> BoxedPrompt:
    return checked_prompt(prompt.text, [box.xyxy() for box in prompt.boxes or ()], prompt.box_labels or ())


def _clicks(prompt: VisualPrompt) -> Clicks:
    points = prompt.points or ()
    return Clicks(
        [(point.x, point.y) for point in points],
        [point.positive for point in points],
        None if prompt.box is None else _box(prompt),
    )


def _box(prompt: VisualPrompt) -> tuple[float, float, float, float]:
    """Return the corners of the box of a prompt.

    Raises:
        InvalidRequestError: It has none.
    """
    if (box := prompt.box) is None:
        raise InvalidRequestError(
            "prompts: a prompt has neither a box nor points; give the box around the object, or points on it"
        )
    half_width, half_height = box.width / 2, box.height / 2
    return box.x - half_width, box.y - half_height, box.x + half_width, box.y + half_height


def _best_in(box: Sequence[float], result: Segmentation) -> Instance | None:
    """Return the instance whose box overlaps the given one most (IoU); None if none overlaps it."""
    if not len(result):
        return None
    x1, y1 = np.maximum(result.boxes[:, :2], box[:2]).T
    x2, y2 = np.minimum(result.boxes[:, 2:], box[2:]).T
    shared = np.clip(x2 - x1, 0, None) * np.clip(y2 - y1, 0, None)
    areas = np.prod(result.boxes[:, 2:] - result.boxes[:, :2], axis=1)
    overlaps = shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)
    best = int(np.argmax(overlaps))
    return result[best] if overlaps[best] > 0 else None


def _prediction(instance: Instance | None, format_: MaskFormat) -> Prediction:
    if instance is None:
        return Prediction(masks=[], confidence=0.0, format="polygon")
    if format_ == "rle":
        return Prediction(masks=masks.to_coco(instance.rle), confidence=instance.score, format="rle")
    paths = [joined_rings(polygon).tolist() for polygon in instance.polygons()]
    return Prediction(masks=paths, confidence=instance.score, format="polygon")


def _without_duplicates(results: Sequence[Segmentation], iou: float) -> list[Segmentation]:
    """Drop instances whose mask overlaps that of a better one, of any prompt, by more than ``iou``."""
    scored = [(float(score), k, n) for k, result in enumerate(results) for n, score in enumerate(result.scores)]
    if len(scored) > _MAX_COMPARED:
        raise InvalidRequestError(
            f"nms_iou_threshold: {len(scored)} instances were found, and at most {_MAX_COMPARED} are compared; "
            "raise output_prob_thresh, or leave nms_iou_threshold out"
        )
    scored.sort(key=lambda one: -one[0])
    rles = [results[k].rles[n] for _, k, n in scored]
    overlaps = masks.iou(rles, rles)
    kept: list[int] = []
    for place in range(len(scored)):
        if not kept or overlaps[place, kept].max() <= iou:
            kept.append(place)
    chosen = {scored[place][1:] for place in kept}
    return [result[[n for n in range(len(result)) if (k, n) in chosen]] for k, result in enumerate(results)]

"""``POST /v1/images/segmentations`` beside OpenAI's image routes, with the fields of vLLM-Omni, which defined it.

OpenAI has no such route. Clients of theirs reach this one with their generic ``post``, any HTTP library with a form.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s3seg.api.fields import RequestModel, ResponseModel, explain
from s3seg.errors import InvalidRequestError
from s3seg.inference.prompts import BoxedPrompt
from s3seg.integrations.door import ERRORS, KEY_HEADERS, Door, checked_prompt, ok
from s3seg.results import masks
from s3seg.results.label_map import encode_png
from s3seg.results.segmentation import Segmentation
from s3seg.web.multipart import read_form
from s3seg.web.operations import Operation

_MAX_MASK_PIXELS = 2_000_000_000  # of all masks that are written as PNG in an answer: some seconds of work
_FIELD_BYTES = 16 * 1024

_Boxes = TypeAdapter(list[tuple[float, float, float, float]])
_Labels = TypeAdapter(list[bool])


class SegmentationForm(RequestModel):
    """The fields of the form, beside the file ``image``."""

    prompt: Annotated[str, Field(description="What to look for; may be left out if there are boxes")] = ""
    boxes: Annotated[str, Field(description="JSON: [[x0, y0, x1, y1], ...] in pixels, around examples")] = "[]"
    box_labels: Annotated[
        str, Field(description="JSON: for each box 1 (find such) or 0 (not such); by default all are 1")
    ] = "[]"
    mask_format: Annotated[
        Literal["png", "rle"], Field(description="png: base64 of a grey PNG, 255 inside; rle: COCO, compressed")
    ] = "png"
    model: Annotated[str, Field(description="Accepted for clients that send it; there is one model")] = ""
    threshold: Annotated[float | None, Field(ge=0, le=1, description="Keep higher scores; by default the model's")] = (
        None
    )
    max_instances: Annotated[int | None, Field(ge=1, description="Keep the best; by default all")] = None


class InstanceData(ResponseModel):
    """One instance."""

    mask: Annotated[str | dict[str, Any], Field(description="In the format that was asked for")]
    box: Annotated[list[float], Field(description="x0, y0, x1, y1 in pixels, as the network predicted it")]
    score: float


class SegmentationsResponse(ResponseModel):
    """Every instance, the highest score first."""

    created: int
    model: str
    mask_format: str
    width: int
    height: int
    data: list[InstanceData]


class OpenAiRoutes:
    """POST /v1/images/segmentations."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="POST",
                path="/v1/images/segmentations",
                handler=self.segment,
                summary="Segment a picture that is sent with the request",
                description="Nothing is stored. The key is a bearer token, as in OpenAI's API, or in X-API-Key.",
                body=SegmentationForm,
                body_type="multipart/form-data",
                files=("image",),
                responses=ok("Every instance", SegmentationsResponse),
                errors=ERRORS,
                key_headers=KEY_HEADERS,
                tag="openai",
            ),
        )

    async def segment(self, request: Request) -> Response:
        """Segment a picture with one prompt."""
        async with self._door.place(request):
            sent = await read_form(
                request, file="image", fields=SegmentationForm.model_fields, field_bytes=_FIELD_BYTES
            )
            form = _validated(sent.fields)
            (result,) = await self._door.segment(
                request,
                sent.file,
                [_prompt(form)],
                thresholds=[form.threshold],
                max_instances=form.max_instances,
            )
            data = await asyncio.to_thread(_instances, result, form.mask_format)
        height, width = result.size
        body = SegmentationsResponse(
            created=int(time.time()),
            model=result.model.name,
            mask_format=form.mask_format,
            width=width,
            height=height,
            data=data,
        )
        return JSONResponse(body.model_dump())


def _instances(result: Segmentation, mask_format: str) -> list[InstanceData]:
    height, width = result.size
    if mask_format == "png" and len(result) * height * width > _MAX_MASK_PIXELS:
        raise InvalidRequestError(
            f"{len(result)} masks of {width} x {height} pixels are more than PNG can be asked for, which is "
            f"{_MAX_MASK_PIXELS:,} pixels in all; use mask_format=rle, or a smaller max_instances"
        )
    return [
        InstanceData(mask=_mask(instance.rle, mask_format), box=list(instance.box), score=instance.score)
        for instance in result
    ]


def _mask(rle: masks.RLE, mask_format: str) -> str | dict[str, Any]:
    if mask_format == "rle":
        return masks.to_coco(rle)
    return base64.b64encode(encode_png(masks.decode(rle).astype(np.uint8) * np.uint8(255))).decode("ascii")


def _validated(fields: Any) -> SegmentationForm:
    try:
        return SegmentationForm.model_validate(fields)
    except ValidationError as err:
        raise InvalidRequestError(explain(err)) from None


def _prompt(form: SegmentationForm) -> BoxedPrompt:
    boxes = _parsed("boxes", form.boxes, _Boxes, "[[x0, y0, x1, y1], ...]")
    labels = _parsed("box_labels", form.box_labels, _Labels, "[1, 0, ...]")
    return checked_prompt(form.prompt, boxes, labels)


def _parsed(name: str, text: str, adapter: TypeAdapter[Any], example: str) -> Any:
    try:
        return adapter.validate_python(json.loads(text or "[]"))
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{name}: must be JSON such as {example}, got {text!r:.80}") from None

"""Label Studio's protocol for machine learning backends: predictions for the labels of a project, found by their names.

The routes are below ``/label-studio``, which is part of the address that is entered in a project. Label Studio sends
the addresses of pictures; they are downloaded from the configured Label Studio only, whatever a request says.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s3seg.api.fields import RequestModel
from s3seg.errors import InvalidRequestError, S3segError
from s3seg.integrations.door import ERRORS, KEY_HEADERS, Door, check_number_of_prompts, checked_prompt, ok
from s3seg.integrations.label_studio_files import LabelStudioFiles
from s3seg.results import masks
from s3seg.results.brush_rle import encode_brush
from s3seg.results.polygons import joined_rings
from s3seg.results.segmentation import Instance, Segmentation
from s3seg.results.simplify import simplify_ring
from s3seg.web.disconnects import until_disconnect
from s3seg.web.operations import Operation

_log = logging.getLogger(__name__)
_PREFIX = "/label-studio"
_MAX_TASKS = 200
_TASKS_AT_ONCE = 4  # of a request; each holds a picture
_MAX_CONFIG = 64 * 1024
_MAX_BRUSH_PIXELS = 50_000_000  # of a picture: Label Studio repeats each pixel four times
_TOLERANCE = 1.0  # pixels by which the vertices that are left out of a polygon may be off


class TaskBody(RequestModel):
    """A task of a project."""

    id: int | str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class PredictBody(RequestModel):
    """POST /predict."""

    tasks: list[TaskBody] = Field(max_length=_MAX_TASKS)
    label_config: str = Field(max_length=_MAX_CONFIG)


class SetupBody(RequestModel):
    """POST /setup: sent when a backend is connected, and before predictions."""

    schema_: str = Field("", alias="schema", max_length=_MAX_CONFIG)


@dataclass(frozen=True, slots=True)
class Control:
    """The part of a project's configuration that predictions are for.

    Attributes:
        name: Name of the control, such as "tag".
        kind: "brushlabels", "polygonlabels" or "rectanglelabels".
        image: Name of the image that it belongs to.
        key: Name of the field of a task's data that has the address of the picture.
        labels: The prompt of each label.
    """

    name: str
    kind: str
    image: str
    key: str
    labels: dict[str, str]


class LabelStudioRoutes:
    """GET /health and /versions, POST /setup and /predict, below /label-studio.

    Args:
        door: What the routes share.
        files: Downloads the pictures of tasks.
    """

    def __init__(self, door: Door, files: LabelStudioFiles) -> None:
        self._door = door
        self._files = files

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        shared: dict[str, Any] = {"key_headers": KEY_HEADERS, "tag": "label-studio"}
        missing = ("INVALID_REQUEST", "AUTH_REQUIRED", "AUTH_INVALID", "MODEL_NOT_LOADED")
        return (
            Operation(
                method="GET",
                path=f"{_PREFIX}/health",
                handler=self.health,
                summary="Check that the process answers",
                responses=ok("It answers"),
                secured=False,
                tag="label-studio",
            ),
            Operation(
                method="POST",
                path=f"{_PREFIX}/setup",
                handler=self.setup,
                summary="Check the labels of a project, and get the version of the model",
                body=SetupBody,
                responses=ok("The project can be used"),
                errors=missing,
                **shared,
            ),
            Operation(
                method="GET",
                path=f"{_PREFIX}/versions",
                handler=self.versions,
                summary="List the versions of the model: the one that is loaded",
                responses=ok("The version"),
                errors=missing,
                **shared,
            ),
            Operation(
                method="POST",
                path=f"{_PREFIX}/predict",
                handler=self.predict,
                summary="Find every label of a project in the pictures of tasks",
                description="Nothing is stored. The key is the password of basic authentication, with any user name.",
                body=PredictBody,
                responses=ok("A prediction for each task, or none for a task whose picture cannot be read"),
                errors=ERRORS,
                **shared,
            ),
        )

    async def health(self, request: Request) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "UP", "model_class": "s3seg"})

    async def setup(self, request: Request) -> Response:
        """Check the labels of a project."""
        body = await self._door.read_json(request, SetupBody)
        if body.schema_:
            control = parse_config(body.schema_)
            check_number_of_prompts(len(control.labels))
        return JSONResponse({"model_version": self._door.version})

    async def versions(self, request: Request) -> Response:
        """List the one version."""
        return JSONResponse({"versions": [self._door.version]})

    async def predict(self, request: Request) -> Response:
        """Find the labels in the pictures of tasks."""
        async with self._door.place(request):
            body = await self._door.read_json(request, PredictBody)
            control = parse_config(body.label_config)
            check_number_of_prompts(len(control.labels))
            outcomes = await until_disconnect(request, self._predict_all(control, body.tasks))
        errors = [one for one in outcomes if isinstance(one, S3segError)]
        if errors and len(errors) == len(outcomes):
            raise errors[0]
        # a task without a prediction is asked for again; an empty one would say that there is nothing to find
        return JSONResponse({"results": [[] if isinstance(one, S3segError) else [one] for one in outcomes]})

    async def _predict_all(self, control: Control, tasks: Sequence[TaskBody]) -> list[dict[str, Any] | S3segError]:
        turns = asyncio.Semaphore(_TASKS_AT_ONCE)

        async def predict(task: TaskBody) -> dict[str, Any] | S3segError:
            async with turns:
                try:
                    return await self._predict(control, task)
                except S3segError as err:
                    _log.warning("no prediction for a task", extra={"task": str(task.id)[:40], "why": str(err)})
                    return err

        return await asyncio.gather(*map(predict, tasks))

    async def _predict(self, control: Control, task: TaskBody) -> dict[str, Any]:
        prompts = [checked_prompt(prompt, [], []) for prompt in control.labels.values()]
        picture = await self._files.read(task.data.get(control.key), key=control.key)
        results = await self._door.segment(None, picture, prompts, thresholds=[None] * len(prompts))
        return await asyncio.to_thread(_prediction, control, results, self._door.version)


def parse_config(text: str) -> Control:
    """Find the labels that can be predicted in the configuration of a project.

    Args:
        text: The XML. A label is looked for by its value, or by its ``hint`` if it has one.

    Raises:
        InvalidRequestError: It is not XML, or has no labels of brushes, polygons or rectangles on an image.
    """
    if "<!" in text.replace("<!--", ""):  # no entities, which can make a short text very long
        raise InvalidRequestError(
            "label_config: it has a document type or an entity (<!...), which is not allowed; remove it"
        )
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (checked above)
    except ElementTree.ParseError as err:
        raise InvalidRequestError(
            f"label_config: it is not valid XML: {err}; correct the labeling interface of the project"
        ) from None
    images = {one.get("name", ""): one.get("value", "").removeprefix("$") for one in root.iter("Image")}
    for tag in ("BrushLabels", "PolygonLabels", "RectangleLabels"):
        for control in root.iter(tag):
            image = control.get("toName", "")
            labels = {one.get("value", ""): one.get("hint") or one.get("value", "") for one in control.iter("Label")}
            labels.pop("", None)
            if image in images and labels:
                return Control(control.get("name", ""), tag.lower(), image, images[image], labels)
    raise InvalidRequestError(
        "label_config: there is no <BrushLabels>, <PolygonLabels> or <RectangleLabels> with labels for an <Image>; "
        "add one to the labeling interface of the project"
    )


def _prediction(control: Control, results: Sequence[Segmentation], version: str) -> dict[str, Any]:
    regions = [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": control.name,
            "to_name": control.image,
            "type": control.kind,
            "original_width": result.size[1],
            "original_height": result.size[0],
            "image_rotation": 0,
            "value": {**value, control.kind: [label]},
            "score": instance.score,
        }
        for label, result in zip(control.labels, results, strict=True)
        for instance in result
        if instance.area
        for value in _VALUES[control.kind](instance)
    ]
    scores = [region["score"] for region in regions]
    return {"result": regions, "score": sum(scores) / len(scores) if scores else 0.0, "model_version": version}


def _brush(instance: Instance) -> list[dict[str, Any]]:
    height, width = instance.rle.size
    if height * width > _MAX_BRUSH_PIXELS:
        raise InvalidRequestError(
            f"the picture has {width} x {height} pixels, and brush masks are made up to {_MAX_BRUSH_PIXELS:,} pixels; "
            "use <PolygonLabels> or <RectangleLabels>"
        )
    return [{"format": "rle", "rle": encode_brush(instance.mask)}]


def _polygons(instance: Instance) -> list[dict[str, Any]]:
    height, width = instance.rle.size
    values = []
    for polygon in instance.polygons():
        path = joined_rings([simplify_ring(ring, _TOLERANCE) for ring in polygon])
        points = [[100 * x / width, 100 * y / height] for x, y in path.tolist()]
        values.append({"points": points, "closed": True})
    return values


def _rectangle(instance: Instance) -> list[dict[str, Any]]:
    height, width = instance.rle.size
    x1, y1, x2, y2 = masks.box(instance.rle)
    sides = {"x": 100 * x1 / width, "y": 100 * y1 / height}
    return [{**sides, "width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rotation": 0}]


_VALUES: dict[str, Callable[[Instance], list[dict[str, Any]]]] = {
    "brushlabels": _brush,
    "polygonlabels": _polygons,
    "rectanglelabels": _rectangle,
}

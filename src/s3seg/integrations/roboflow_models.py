"""The bodies of Roboflow's routes for SAM 3."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from s3seg.api.fields import RequestModel, ResponseModel
from s3seg.errors import InvalidRequestError
from s3seg.integrations.door import EncodedPicture

Score = Annotated[float, Field(ge=0, le=1)]
MaskFormat = Literal["polygon", "rle", "json"]


class Picture(RequestModel):
    """The picture of a request."""

    type: Literal["base64"] = "base64"
    value: EncodedPicture

    @model_validator(mode="before")
    @classmethod
    def _no_url(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("type") == "url":
            raise ValueError("this service does not download pictures; send the bytes of the file with the type base64")
        return value


class CornerBox(RequestModel):
    """A box by its top left corner, or by two corners, in pixels."""

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    x0: float | None = None
    y0: float | None = None
    x1: float | None = None
    y1: float | None = None

    def xyxy(self) -> tuple[float, float, float, float]:
        """Return the corners.

        Raises:
            InvalidRequestError: Some of the numbers are not there.
        """
        if None not in (corners := (self.x0, self.y0, self.x1, self.y1)):
            return corners  # type: ignore[return-value] (none of them is None)
        if self.x is None or self.y is None or self.width is None or self.height is None:
            raise InvalidRequestError(
                "boxes: a box has x, y, width and height, or x0, y0, x1 and y1; got only "
                f"{', '.join(sorted(self.model_dump(exclude_none=True))) or 'none of them'}"
            )
        return self.x, self.y, self.x + self.width, self.y + self.height


class ConceptPrompt(RequestModel):
    """Words, boxes around examples, or both."""

    type: str | None = None
    text: str | None = None
    boxes: list[CornerBox] | None = None
    box_labels: list[bool] | None = Field(None, description="For each box: 1 to find such, 0 for not such")
    output_prob_thresh: Score | None = Field(None, description="Keep higher scores; overrides that of the request")


class AnyRequest(RequestModel):
    """What both requests have."""

    image: Picture
    api_key: str | None = Field(None, description="The key, where it is not in the header")


class ConceptRequest(AnyRequest):
    """POST /sam3/concept_segment."""

    prompts: list[ConceptPrompt]
    output_prob_thresh: Score = 0.5
    format: MaskFormat = "polygon"
    nms_iou_threshold: Score | None = Field(
        None, description="Drop instances that overlap a better one of any prompt by more than this IoU"
    )


class CentreBox(RequestModel):
    """A box by its centre, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Point(RequestModel):
    """A click, in pixels."""

    x: float
    y: float
    positive: bool = Field(True, description="Whether it is on the object; if not, on what does not belong to it")


class VisualPrompt(RequestModel):
    """What shows one object: the box around it, clicks, or both."""

    box: CentreBox | None = None
    points: list[Point] | None = None


class VisualPrompts(RequestModel):
    """The prompts of a visual request."""

    prompts: list[VisualPrompt]


class VisualRequest(AnyRequest):
    """POST /sam3/visual_segment."""

    prompts: VisualPrompts | list[VisualPrompt]
    format: MaskFormat = "json"


class Prediction(ResponseModel):
    """One instance."""

    masks: list[list[list[int]]] | dict[str, Any] = Field(description="Polygons of [x, y] pixels, or compressed RLE")
    confidence: float
    format: Literal["polygon", "rle"]


class Echo(ResponseModel):
    """The prompt, as it was understood."""

    prompt_index: int
    type: str
    text: str | None
    num_boxes: int


class PromptResult(ResponseModel):
    """Every instance of one prompt."""

    prompt_index: int
    echo: Echo
    predictions: list[Prediction]


class ConceptResponse(ResponseModel):
    """One result for each prompt."""

    prompt_results: list[PromptResult]
    time: float


class VisualResponse(ResponseModel):
    """One prediction for each prompt."""

    predictions: list[Prediction]
    time: float

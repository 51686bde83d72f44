"""What the routes of all tools share inside the gpu service: the key, the limits, and the way to the network."""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request

from s3seg.edge.concurrency import ConcurrencyLimiter, UserShares
from s3seg.errors import FileTooLargeError, InvalidRequestError
from s3seg.inference.engine import Engine, ModelState
from s3seg.inference.prompts import BoxedPrompt, checked_prompts
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.clicks import Clicks, click_texts
from s3seg.tasks.limits import MAX_PROMPT_CHARS, MAX_PROMPTS, MAX_UPLOAD_BYTES
from s3seg.web.disconnects import until_disconnect
from s3seg.web.keys import KEY_HEADER, ApiKeys
from s3seg.web.operations import ResponseSpec
from s3seg.web.validation import check_json_type, parse_json, require_uncompressed

MAX_BOXES = 64
"""Most boxes of a prompt."""

ERRORS = (
    "INVALID_REQUEST",
    "AUTH_REQUIRED",
    "AUTH_INVALID",
    "FILE_TOO_LARGE",
    "INFERENCE_FAILED",
    "MODEL_NOT_LOADED",
    "UNAVAILABLE",
)
"""The error codes of an operation that segments a picture."""

KEY_HEADERS = ("Authorization", KEY_HEADER)
"""Where tools send the key: as a bearer token, or as our own clients do."""

_MAX_JSON_BYTES = (MAX_UPLOAD_BYTES * 4) // 3 + 64 * 1024
_AT_ONCE = 24  # requests, each of which holds a picture of up to 10 MB; a single client gets a third of them
_DECODED_AT_ONCE = 2  # of the decoding processes, so that the pictures of tasks find others free
_WAIT_S = 10.0
_PARSED_AT_ONCE = 2

_M = TypeVar("_M", bound=BaseModel)


def _picture(value: object) -> bytes:
    """Decode a picture that came in JSON: base64, or a data: URL of it."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string with a picture in base64, got {type(value).__name__}")  # noqa: TRY004 (pydantic makes it an error of the field)
    head, comma, data = value.partition(",") if value[:5].lower() == "data:" else ("", ",", value)
    if not comma or (head and not head.lower().endswith(";base64")):
        raise ValueError("is a data: URL without base64; send data:image/png;base64,... or plain base64")
    try:
        picture = base64.b64decode(data, validate=False)
    except binascii.Error:
        raise ValueError("is not valid base64; encode the bytes of the picture file") from None
    if len(picture) > MAX_UPLOAD_BYTES:
        raise ValueError(
            f"has {len(picture):,} bytes, more than 10 MB ({MAX_UPLOAD_BYTES:,} bytes); send a smaller picture"
        )
    return picture


EncodedPicture = Annotated[
    bytes,
    BeforeValidator(_picture),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
    Field(description="The file, of at most 10 MB: base64, or a data: URL"),
]
"""A picture in JSON."""


class Door:
    """Segments pictures that come with the request, instead of tasks: nothing is stored, and no credit is taken.

    Requests wait for a place before their bodies are read, so that the service holds few pictures at a time.

    Args:
        engine: The engine of the service.
        keys: The keys of the service.
    """

    def __init__(self, engine: Engine, keys: ApiKeys) -> None:
        self.keys = keys
        self._engine = engine
        self._places = ConcurrencyLimiter(
            UserShares(_AT_ONCE, per_user=_AT_ONCE), wait_s=_WAIT_S, name="pictures are segmented"
        )
        self._parsing = asyncio.Semaphore(_PARSED_AT_ONCE)
        self._turns = itertools.count()

    @property
    def loaded(self) -> bool:
        """Whether the model is loaded."""
        return self._engine.state is ModelState.READY

    @property
    def model(self) -> str:
        """The name of the model that is loaded.

        Raises:
            CheckpointError: None is.
        """
        return self._engine.network.model.name

    @property
    def version(self) -> str:
        """The name and the version of the model that is loaded.

        Raises:
            CheckpointError: None is.
        """
        model = self._engine.network.model
        return f"{model.name} {model.version}"

    @property
    def threshold(self) -> float:
        """The score above which an instance counts by default.

        Raises:
            CheckpointError: No model is loaded.
        """
        return self._engine.network.threshold

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[None]:
        """Take a place while the block runs.

        Raises:
            CheckpointError: The model is not loaded.
            UnavailableError: All places are taken, or the service is at capacity or draining.
        """
        self._engine.network  # noqa: B018 (raises if the model is not loaded)
        self._engine.worker.require_room()
        # all callers have the same key, so shares are by address
        async with self._places.slot("" if request.client is None else request.client.host):
            yield

    async def read_json(self, request: Request, model: type[_M]) -> _M:
        """Read a body that may have a picture in it.

        Raises:
            InvalidRequestError: It is not JSON, or does not fit the model; names the field.
            FileTooLargeError: It is longer than a picture of 10 MB takes.
        """
        check_json_type(request)
        require_uncompressed(request)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_JSON_BYTES:
                raise FileTooLargeError(
                    f"the body is longer than {_MAX_JSON_BYTES:,} bytes, which is enough for 10 MB in base64; send a "
                    "smaller picture"
                )
        async with self._parsing:
            return await asyncio.to_thread(parse_json, bytes(body), model)

    async def segment(
        self,
        request: Request | None,
        picture: bytes,
        prompts: Sequence[BoxedPrompt],
        *,
        thresholds: Sequence[float | None],
        max_instances: int | None = None,
    ) -> list[Segmentation]:
        """Segment a picture; the work ends when the client is gone.

        Args:
            request: The request, whose body has been read; None if the caller watches for its end.
            picture: The bytes of a file.
            prompts: What to look for.
            thresholds: For each prompt, keep instances that score above this; None takes the model's. Below 0.1 is 0.1.
            max_instances: Keep at most this many for each prompt, the best.

        Raises:
            S3segError: What `Batcher.segment` raises.
        """
        asked = [prompt if prompt.boxes or prompt.negative_boxes else prompt.text for prompt in prompts]
        results = await self._segment(request, picture, asked)
        limits = [self.threshold if one is None else one for one in thresholds]
        return [result[result.scores > limit][:max_instances] for result, limit in zip(results, limits, strict=True)]

    async def click(self, request: Request | None, picture: bytes, objects: Sequence[Clicks]) -> list[Segmentation]:
        """Segment the objects that clicks show; the work ends when the client is gone.

        Args:
            request: As for `segment`.
            picture: The bytes of a file.
            objects: The clicks of each object.

        Returns:
            A result for each object, of one instance.

        Raises:
            InvalidRequestError: The checkpoint has no click head, or a click is outside the picture.
            S3segError: What else `Batcher.segment` raises.
        """
        return await self._segment(request, picture, click_texts(objects), objects=objects)

    async def _segment(
        self,
        request: Request | None,
        picture: bytes,
        prompts: Sequence[str | BoxedPrompt],
        objects: Sequence[Clicks] = (),
    ) -> list[Segmentation]:
        turn = f"door {next(self._turns) % _DECODED_AT_ONCE}"
        work = self._engine.batcher.segment(picture, prompts, objects=objects, name="the picture", user_id=turn)
        return await (work if request is None else until_disconnect(request, work))


def checked_prompt(text: str | None, boxes: Sequence[Sequence[float]], labels: Sequence[bool]) -> BoxedPrompt:
    """Return a prompt, after checking its length and the number of its boxes.

    Args:
        text: What to look for; may be empty if there are boxes.
        boxes: xyxy in pixels.
        labels: For each box, whether it shows what to find; empty if all do.

    Raises:
        InvalidRequestError: There are more boxes than `MAX_BOXES`, or not one label for each.
        PromptError: The text is empty without boxes, too long, or has control characters.
    """
    labels = labels or [True] * len(boxes)
    if len(labels) != len(boxes):
        raise InvalidRequestError(
            f"box_labels: got {len(labels)} labels for {len(boxes)} boxes; give one label for each box"
        )
    if len(boxes) > MAX_BOXES:
        raise InvalidRequestError(f"boxes: a prompt may have {MAX_BOXES} boxes, got {len(boxes)}; leave some out")
    if text and len(text) > MAX_PROMPT_CHARS:
        raise InvalidRequestError(
            f"a prompt may have {MAX_PROMPT_CHARS} characters, got {len(text)}; shorten it: {text!r:.60}"
        )
    positive = tuple(tuple(box) for box, label in zip(boxes, labels, strict=True) if label)
    negative = tuple(tuple(box) for box, label in zip(boxes, labels, strict=True) if not label)
    (normal,) = checked_prompts(text or None, has_boxes=bool(positive))
    return BoxedPrompt(normal, positive, negative)


def check_number_of_prompts(number: int) -> None:
    """Raise InvalidRequestError unless there are between one and 16 prompts."""
    if not 1 <= number <= MAX_PROMPTS:
        raise InvalidRequestError(f"prompts: give 1 to {MAX_PROMPTS} prompts in a request, got {number}")


def ok(description: str, model: type[BaseModel] | None = None) -> dict[int, ResponseSpec]:
    """Return the responses of an operation that answers 200 with JSON."""
    return {200: ResponseSpec(description=description, model=model)}

"""Field types that several wire models share."""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import MAX_PROMPT_CHARS
from s3seg.tasks.prompts import normalize_prompt
from s3seg.tasks.retention import LONGEST_KEEP_S
from s3seg.tasks.tiles import MAX_TILE, MIN_TILE, checked_tile_of_service

_T = TypeVar("_T")

# Characters that reorder text instead of being text. Joiners (U+200C, U+200D) stay: emoji need them.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, surrogates, breaks


class RequestModel(BaseModel):
    """Base of request models. Unknown fields are ignored, so that clients may be newer than the service."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ResponseModel(BaseModel):
    """Base of response models. Unknown fields are errors: the service must not send what the contract does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _is_none(value: object) -> bool:
    return value is None


Omissible = Annotated[
    _T | SkipJsonSchema[None],
    Field(default=None, exclude_if=_is_none, json_schema_extra=_without_default),
]
"""A field marked ``?`` in the contract: left out when it has no value, never null."""


_CANONICAL_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def _canonical_uuid(value: str) -> str:
    if _CANONICAL_UUID.fullmatch(value):  # the usual case
        return value
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("must be a UUID") from None


UuidStr = Annotated[str, AfterValidator(_canonical_uuid), Field(json_schema_extra={"format": "uuid"})]
"""A UUID as text; canonical (lower case, dashes) once validated."""


def _none_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


OmissibleUuid = Annotated[Omissible[UuidStr], BeforeValidator(_none_if_blank)]
"""A UUID that a request may leave out. A blank text, as forms send it, is the same as no field."""


def _check_tile(value: object) -> object:
    if isinstance(value, float) and value.is_integer():  # JSON has one type of numbers
        value = int(value)
    try:
        return checked_tile_of_service(value)
    except InvalidRequestError as err:
        raise ValueError(str(err).removeprefix("tile is ")) from None


OmissibleTile = Annotated[
    Omissible[Literal["auto"] | Annotated[int, Field(ge=MIN_TILE, le=MAX_TILE)]], BeforeValidator(_check_tile)
]
"""The side of tiles in pixels, or "auto"; a request may leave it out."""


def _digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.lstrip("-").isdecimal()):
        raise ValueError("must be a whole number")
    return value


QueryInt = Annotated[int, BeforeValidator(_digits)]
"""A whole number in a query: digits only, without the underscores, spaces and points that Python accepts."""


ExpiresIn = Annotated[
    Omissible[Annotated[QueryInt, Field(ge=1, le=LONGEST_KEEP_S)]],
    BeforeValidator(_none_if_blank),
    Field(description="Addition: seconds after which it is removed; at most retention_s of /me, which is the default"),
]
"""For how many seconds something is kept, which a request may leave out."""


def check_text(text: str, *, what: str, limit: int) -> str:
    """Check that a text is one readable line, and return it unchanged.

    Args:
        text: 1 to ``limit`` characters, not all blank, without control characters, line breaks, lone
            surrogates or characters that only change the direction of text.
        what: Name of the text in the error message, such as ``a prompt``.
        limit: Largest number of characters (code points).

    Raises:
        ValueError: The text is not valid; the message says why.
    """
    if not text.strip():
        raise ValueError(f"{what} must not be empty")
    if len(text) > limit:
        raise ValueError(f"{what} must have at most {limit} characters, this one has {len(text)}")
    for position, char in enumerate(text):
        if unicodedata.category(char) in _FORBIDDEN_CATEGORIES or char in _BIDI_CONTROLS:
            raise ValueError(f"{what} must not contain control characters: U+{ord(char):04X} at position {position}")
    return text


def check_prompt(prompt: str) -> str:
    """Return the normal form of a prompt (see `normalize_prompt`) if it has 1 to 500 characters, as in `check_text`.

    Raises:
        ValueError: The text cannot be a prompt; the message says why.
    """
    if len(prompt) > _MAX_TYPED_CHARS:  # bounds the time that normalizing takes
        raise ValueError(f"a prompt must have at most {MAX_PROMPT_CHARS} characters, this one has {len(prompt)}")
    return check_text(normalize_prompt(prompt), what="a prompt", limit=MAX_PROMPT_CHARS)


_MAX_TYPED_CHARS = 4 * MAX_PROMPT_CHARS
# Control characters that are not white space; and what `normalize_prompt` removes if a text has nothing else.
_CONTROLS = r"\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f"
_BLANKS = (
    r"\s\u001c-\u001f\u0085\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069"
    r"\u2800\u3164\ufeff\uffa0\ufffc"
)

PromptStr = Annotated[
    str,
    AfterValidator(check_prompt),
    Field(
        json_schema_extra={
            "minLength": 1,
            "maxLength": MAX_PROMPT_CHARS,
            "pattern": rf"^[^{_CONTROLS}]*[^{_CONTROLS}{_BLANKS}][^{_CONTROLS}]*$",
        }
    ),
]
"""A text prompt of 1 to 500 characters, in its normal form once validated; see `check_prompt`."""


NO_DATA_URL = (
    "a data: URL is not accepted; send the picture to POST /api/v1/upload, and use the image_url of the response"
)
"""What to do instead of sending a picture in JSON."""


def _no_data_url(value: object) -> object:
    if isinstance(value, str) and value[:64].lstrip().lower().startswith("data:"):
        raise ValueError(NO_DATA_URL)
    return value


ImageUrl = Annotated[str, BeforeValidator(_no_data_url), Field(max_length=2048)]
"""The ``image_url`` of an upload. Whether it is one is decided by the task store."""


_REASONS = {"tuple_type": "must be a list", "string_type": "must be text"}  # rather than words of Python
_NOT_AN_OBJECT = ("model_type", "model_attributes_type", "dict_type")


def explain(error: ValidationError) -> str:
    """Describe in one line which field of a request is wrong and why, without repeating the value.

    Returns:
        For example ``limit: Input should be less than or equal to 100``.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())
    reason = _REASONS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    if not place and first["type"] in _NOT_AN_OBJECT:
        return "the body must be a JSON object"
    return f"{place}: {reason}" if place else reason

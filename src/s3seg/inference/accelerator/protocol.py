"""What a service and the process of its network say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3seg.errors import S3segError

if TYPE_CHECKING:
    from s3seg.sam3.device import DeviceStatus
    from s3seg.sam3.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the service needs to know of a predictor that was loaded."""

    device: str
    dtype: str
    image_size: int
    parameters: int
    weights_bytes: int
    tokenizer: Tokenizer
    has_clicks: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A method of the predictor to call, and numbers of encoded images that are not needed any more."""

    number: int
    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    unneeded: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a request, or what it raised."""

    number: int
    result: Any
    error: S3segError | None
    status: DeviceStatus | None

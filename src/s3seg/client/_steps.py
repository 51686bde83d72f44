"""Steps that a call consists of, and the one way in which requests are repeated and errors read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from s3seg.api.envelope import ApiResponse
from s3seg.errors import (
    AuthInvalidError,
    AuthRequiredError,
    CheckpointError,
    FileTooLargeError,
    ForbiddenError,
    InferenceError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    S3segError,
    UnavailableError,
)

_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Step: send a request; gives the `httpx.Response`, read to its end, or raises `httpx.TransportError`.

    Attributes:
        method: Such as ``GET``.
        url: Absolute.
        repeatable: Whether sending it twice does no harm.
        options: Further arguments of `httpx.Client.request`.
    """

    method: str
    url: str
    repeatable: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """Step: let so many seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Step: call something that takes a while, where it holds up nobody; gives what it returns."""

    call: Callable[[], Any]


Steps = Generator[Send | Pause | Work, Any, _T]
"""A call: yields steps, is sent what they gave, returns a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try again.

    Attributes:
        retries: Further tries of one request; those that a rate limit refused are not counted.
        longest_s: Seconds after which a request is not tried again, whatever the reason.
    """

    retries: int = 4
    longest_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Answer(Generic[_T]):
    """What a request gave, and the headers with it."""

    data: _T
    headers: httpx.Headers


def fetch(send: Send, patience: RetryPolicy) -> Steps[httpx.Response]:
    """Send until there is a success.

    Tried again, after a growing pause or what ``Retry-After`` says: refusals (429, 503), answers of a proxy that
    reached nobody (502, 504) and lost connections; the latter two only where repeating does no harm.

    Raises:
        S3segError: The kind that the service's code names, or `UnavailableError` if it was not reached.
    """
    give_up = time.monotonic() + patience.longest_s
    tries = 0
    while True:
        try:
            response: httpx.Response = yield send
        except httpx.TransportError as err:
            sent = not isinstance(err, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            why = str(err) or type(err).__name__
            error: S3segError = UnavailableError(f"{send.url} was not reached: {why}", retry_after=0)
            error.__cause__ = err
            again = send.repeatable or not sent
        else:
            if response.is_success:
                return response
            error = error_of(response)
            again = response.status_code in (429, 503) or (response.status_code in (502, 504) and send.repeatable)
        pause = max(0.25 * 2**tries * random.uniform(1, 1.5), getattr(error, "retry_after", 0.0))  # noqa: S311
        tries += not isinstance(error, RateLimitedError)
        if not again or tries > patience.retries or time.monotonic() + pause > give_up:
            raise error
        yield Pause(pause)


def ask(send: Send, model: type[_M], patience: RetryPolicy) -> Steps[Answer[_M]]:
    """Send until there is a success, and read the data in its envelope.

    Fields that this version does not know are left out, so that services may be newer than their clients.

    Raises:
        S3segError: As `fetch` does, or if the answer is not what the contract says.
    """
    response = yield from fetch(send, patience)
    try:
        envelope = ApiResponse[model].model_validate_json(response.content, extra="ignore")
    except ValidationError as err:
        raise S3segError(f"{send.url} did not answer as an s3seg service does; is the address right?") from err
    if envelope.data is None:
        raise S3segError(f"{send.url} answered without data; is the address right?")
    return Answer(envelope.data, response.headers)


def error_of(response: httpx.Response) -> S3segError:
    """The error that a response tells of, as the class that raises it on the other side."""
    retry_after = _seconds(response.headers.get("retry-after"))
    try:
        envelope = ApiResponse[Any].model_validate_json(response.content, extra="ignore")
    except ValidationError:
        return _error_of_a_stranger(response, retry_after)
    if envelope.error is None:
        return S3segError(f"{response.url} answered {response.status_code} without an error")
    message = f"{envelope.error.message} (request {envelope.meta.request_id})"
    code = envelope.error.code
    if code == "RATE_LIMITED":
        return RateLimitedError(message, limit=_limit(response), retry_after=retry_after or 1.0)
    if code == "UNAVAILABLE":
        return UnavailableError(message, retry_after=retry_after or 1.0)
    return _KINDS.get(code, S3segError)(message)


_KINDS: Mapping[str, type[S3segError]] = {
    kind.code: kind
    for kind in (
        InvalidRequestError,
        CheckpointError,
        InferenceError,
        AuthRequiredError,
        AuthInvalidError,
        ForbiddenError,
        NotFoundError,
        FileTooLargeError,
        InsufficientCreditsError,
    )
}


def _error_of_a_stranger(response: httpx.Response, retry_after: float | None) -> S3segError:
    message = f"{response.url} answered {response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code in (429, 502, 503, 504):
        return UnavailableError(message, retry_after=retry_after or 0.0)
    if response.status_code == 404:
        return NotFoundError(message)
    return S3segError(message)


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def _limit(response: httpx.Response) -> int:
    policy = response.headers.get("ratelimit-policy", "")
    quota = next((part[2:] for part in policy.split(";") if part.startswith("q=")), "")
    return int(quota) if quota.isdecimal() else 0

"""The steps of a call, and how requests are retried and error responses are read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
from pydantic import BaseModel, ValidationError

from s3seg.api.envelope import ApiResponse
from s3seg.errors import (
    AuthInvalidError,
    AuthRequiredError,
    CheckpointError,
    ConfigurationError,
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
class Request:
    """A step that sends a request. Its result is the complete `httpx.Response`; it may raise `httpx.TransportError`.

    Attributes:
        method: The HTTP method.
        url: The absolute URL.
        repeatable: Whether the request may safely be sent more than once.
        options: Further arguments of `httpx.Client.request`.
        save_to: A file that the body of a success is appended to as it arrives; the response then has no body. None
            keeps the body in memory.
    """

    method: str
    url: str
    repeatable: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    save_to: Path | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """A step that waits for a number of seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SleepUnless:
    """A step that waits until a future is done, or for a number of seconds."""

    done: Future[None]
    seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """A step that calls a slow function, in a thread if the client is asynchronous. Its result is the return value."""

    call: Callable[[], Any]


class StoppedError(Exception):
    """Thrown into the steps of a call whose result will not be used, in place of their next step."""


Step = Request | Sleep | SleepUnless | Call

Steps = Generator[Step, Any, _T]
"""A call of the client: a generator that yields steps, is sent their results, and returns the result of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to retry a request.

    Attributes:
        retries: Most retries of one request, not counting those after a rate limit.
        max_elapsed_s: Seconds after which a request is not retried any more.
    """

    retries: int = 4
    max_elapsed_s: float = 300.0


@dataclass(frozen=True, slots=True)
class DataResponse(Generic[_T]):
    """The data of a successful response, and its headers."""

    data: _T
    headers: httpx.Headers


def fetch(request: Request, retry_policy: RetryPolicy) -> Steps[httpx.Response]:
    """Send a request, with retries, until it succeeds, and return the response.

    Responses with status 429 and 503 and failures to connect are always retried. Responses with status 502 and 504
    and lost connections are retried only if the request is repeatable. The pauses grow exponentially, and are at
    least as long as ``Retry-After`` says.

    Raises:
        ConfigurationError: The request is not valid HTTP.
        S3segError: The error with the code in the response, or `UnavailableError` if the service is not reachable.
    """
    give_up = time.monotonic() + retry_policy.max_elapsed_s
    tries = 0
    while True:
        try:
            response: httpx.Response = yield request
        except httpx.LocalProtocolError:  # its message quotes headers, which may be secret
            raise ConfigurationError(
                f"the request to {_shown(request.url)} is not valid HTTP: a header contains a character that is not "
                "allowed; check the headers of the httpx client"
            ) from None
        except httpx.TransportError as err:
            sent = not isinstance(err, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            why = str(err) or type(err).__name__
            error: S3segError = UnavailableError(f"cannot reach {_shown(request.url)}: {why}", retry_after=0)
            error.__cause__ = err
            again = request.repeatable or not sent
        else:
            if response.is_success:
                return response
            error = error_of(response)
            again = response.status_code in (429, 503) or (response.status_code in (502, 504) and request.repeatable)
        pause = max(0.25 * 2**tries * random.uniform(1, 1.5), getattr(error, "retry_after", 0.0))  # noqa: S311
        tries += not isinstance(error, RateLimitedError)
        if not again or tries > retry_policy.retries or time.monotonic() + pause > give_up:
            raise error
        yield Sleep(pause)


def fetch_data(request: Request, model: type[_M], retry_policy: RetryPolicy) -> Steps[DataResponse[_M]]:
    """Send a request, with retries, until it succeeds, and return the data in the response.

    Unknown fields are ignored, so that the service may be newer than the client.

    Raises:
        S3segError: As for `fetch`, or if the response is not one of the API.
    """
    response = yield from fetch(request, retry_policy)
    try:
        envelope = ApiResponse[model].model_validate_json(response.content, extra="ignore")
    except ValidationError as err:
        raise S3segError(f"the response of {_shown(request.url)} is not from an s3seg service; check the URL") from err
    if envelope.data is None:
        raise S3segError(f"the response of {_shown(request.url)} contains no data; check the URL")
    return DataResponse(envelope.data, response.headers)


def error_of(response: httpx.Response) -> S3segError:
    """Return the error that a response describes, as the class with the same code."""
    retry_after = _seconds(response.headers.get("retry-after"))
    try:
        envelope = ApiResponse[Any].model_validate_json(response.content, extra="ignore")
    except ValidationError:
        return _error_without_envelope(response, retry_after)
    if envelope.error is None:
        return S3segError(f"{_shown(str(response.url))} responded with {response.status_code}, but without an error")
    message = f"{envelope.error.message} (request {envelope.meta.request_id})"
    code = envelope.error.code
    if code == "RATE_LIMITED":
        return RateLimitedError(message, limit=_limit(response), retry_after=retry_after or 1.0)
    if code == "UNAVAILABLE":
        return UnavailableError(message, retry_after=retry_after or 1.0)
    return _ERROR_BY_CODE.get(code, S3segError)(message)


_ERROR_BY_CODE: Mapping[str, type[S3segError]] = {
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


def _shown(url: str) -> str:
    """Return a URL for a message: without credentials, and without its query, which may be a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _error_without_envelope(response: httpx.Response, retry_after: float | None) -> S3segError:
    message = f"{_shown(str(response.url))} responded with {response.status_code} {response.reason_phrase}".rstrip()
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

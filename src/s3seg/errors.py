"""Every error that s3seg raises on purpose.

    S3segError                     code INTERNAL_ERROR
    ├── InvalidRequestError        code INVALID_REQUEST   what the caller gave cannot be used
    │   ├── ImageDecodeError       the image cannot be read; names it and says why
    │   ├── PromptError            the prompt is empty, too long, or not text
    │   └── MaskError              a mask or an RLE that does not fit its image
    ├── CheckpointError            code MODEL_NOT_LOADED  weights are missing, wrong or truncated
    │   └── CheckpointNotFoundError
    ├── InferenceError             code INFERENCE_FAILED  the network could not finish
    │   └── OutOfMemoryError       the device's memory does not hold what was asked at once
    ├── AuthRequiredError          code AUTH_REQUIRED     no credentials were sent
    ├── AuthInvalidError           code AUTH_INVALID      credentials that do not hold
    ├── ForbiddenError             code FORBIDDEN         valid credentials of the wrong kind
    ├── NotFoundError              code NOT_FOUND         no such thing, or not this user's
    ├── FileTooLargeError          code FILE_TOO_LARGE
    ├── InsufficientCreditsError   code INSUFFICIENT_CREDITS
    ├── RateLimitedError           code RATE_LIMITED      says when to come back
    ├── UnavailableError           code UNAVAILABLE       a part that we stand on does not answer
    ├── LeaseLostError             code INTERNAL_ERROR    this attempt no longer owns its task
    ├── ObjectExistsError          code INTERNAL_ERROR    an object key is taken
    └── ConfigurationError         code INTERNAL_ERROR    a setting cannot work; names it and the remedy

``code`` is stable, and the same word that the services put in an error body.
"""

from __future__ import annotations


class S3segError(Exception):
    """Base of every error that s3seg raises on purpose."""

    code = "INTERNAL_ERROR"


class InvalidRequestError(S3segError, ValueError):
    """Something the caller gave cannot be used; the message says what and why."""

    code = "INVALID_REQUEST"


class ImageDecodeError(InvalidRequestError):
    """An image cannot be read; the message names it and says why."""


class PromptError(InvalidRequestError):
    """A prompt is empty, too long for the model, or not text."""


class MaskError(InvalidRequestError):
    """A mask or an RLE is malformed or does not fit its image."""


class CheckpointError(S3segError):
    """A checkpoint is incomplete, truncated or not one of SAM 3."""

    code = "MODEL_NOT_LOADED"


class CheckpointNotFoundError(CheckpointError):
    """No checkpoint at the given place; the message says how to get one."""


class InferenceError(S3segError):
    """The network could not finish; the message says at what stage."""

    code = "INFERENCE_FAILED"


class OutOfMemoryError(InferenceError):
    """The device's memory does not hold what was asked at once; less at once may do."""


class AuthRequiredError(S3segError):
    """No credentials were sent."""

    code = "AUTH_REQUIRED"


class AuthInvalidError(S3segError):
    """The credentials are malformed, expired, or signed by nobody we trust."""

    code = "AUTH_INVALID"


class ForbiddenError(S3segError):
    """The credentials are valid but of a kind that may not do this (anonymous, or another role)."""

    code = "FORBIDDEN"


class NotFoundError(S3segError):
    """There is no such thing for this caller; absent and foreign things are told apart nowhere."""

    code = "NOT_FOUND"


class FileTooLargeError(S3segError):
    """An upload exceeds the limit of the contract."""

    code = "FILE_TOO_LARGE"


class InsufficientCreditsError(S3segError):
    """The account holds fewer credits than the task costs."""

    code = "INSUFFICIENT_CREDITS"


class RateLimitedError(S3segError):
    """More than the tier's number of actions within a minute.

    Args:
        message: What was exceeded.
        limit: Actions allowed in any 60 seconds.
        retry_after: Seconds until the next one will be allowed.
        action: What was counted, such as ``upload``.
    """

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, limit: int, retry_after: float, action: str = "") -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after
        self.action = action


class UnavailableError(S3segError):
    """A part that we stand on (disk, database, store) does not answer, or we are at capacity.

    Args:
        message: Which part, and what it said.
        retry_after: Seconds after which another try makes sense.
    """

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LeaseLostError(S3segError):
    """This attempt no longer owns its task: stop, and delete what it stored."""


class ObjectExistsError(S3segError):
    """An object of that key exists already; nothing was written."""


class ConfigurationError(S3segError):
    """A setting cannot work; the message names it, its value, and the remedy."""

"""Every error that s3seg raises on purpose.

    S3segError                     code INTERNAL_ERROR
    ├── InvalidRequestError        code INVALID_REQUEST   an argument or a request is not valid
    │   ├── ImageDecodeError       an image cannot be read; the message names it and says why
    │   ├── PromptError            a prompt is empty, too long, or not text
    │   └── MaskError              a mask or an RLE is malformed, or does not fit its image
    ├── CheckpointError            code MODEL_NOT_LOADED  a checkpoint is incomplete, truncated or not SAM 3's
    │   └── CheckpointNotFoundError
    ├── InferenceError             code INFERENCE_FAILED  the network could not produce a result
    │   └── OutOfMemoryError       the input does not fit into the device's memory
    ├── AuthRequiredError          code AUTH_REQUIRED     no credentials were sent
    ├── AuthInvalidError           code AUTH_INVALID      the credentials are malformed, expired or not trusted
    ├── ForbiddenError             code FORBIDDEN         the credentials are valid but do not allow the action
    ├── NotFoundError              code NOT_FOUND         it does not exist, or it belongs to another user
    ├── FileTooLargeError          code FILE_TOO_LARGE    an upload exceeds the size limit
    ├── InsufficientCreditsError   code INSUFFICIENT_CREDITS
    ├── RateLimitedError           code RATE_LIMITED      too many requests; says when to retry
    ├── UnavailableError           code UNAVAILABLE       a dependency does not respond, or the service is at capacity
    ├── LeaseLostError             code INTERNAL_ERROR    this attempt no longer holds its task
    ├── ObjectExistsError          code INTERNAL_ERROR    an object with this key already exists
    └── ConfigurationError         code INTERNAL_ERROR    a setting does not work; names it and how to fix it

``code`` is stable. It is the same word that the services return in the body of an error response.
"""

from __future__ import annotations


class S3segError(Exception):
    """Base class of every error that s3seg raises on purpose."""

    code = "INTERNAL_ERROR"


class InvalidRequestError(S3segError, ValueError):
    """An argument or a request is not valid; the message says which value and why."""

    code = "INVALID_REQUEST"


class ImageDecodeError(InvalidRequestError):
    """An image cannot be read; the message names it and says why."""


class PromptError(InvalidRequestError):
    """A prompt is empty, too long for the model, or not text."""


class MaskError(InvalidRequestError):
    """A mask or an RLE is malformed or does not fit its image."""


class CheckpointError(S3segError):
    """A checkpoint is incomplete, truncated or not a SAM 3 checkpoint."""

    code = "MODEL_NOT_LOADED"


class CheckpointNotFoundError(CheckpointError):
    """There is no checkpoint at the given location; the message says how to get one."""


class InferenceError(S3segError):
    """The network could not produce a result; the message names the stage that failed."""

    code = "INFERENCE_FAILED"


class OutOfMemoryError(InferenceError):
    """The input does not fit into the device's memory; fewer images or prompts at a time may fit."""


class AuthRequiredError(S3segError):
    """No credentials were sent."""

    code = "AUTH_REQUIRED"


class AuthInvalidError(S3segError):
    """The credentials are malformed, expired, or signed with a key that is not trusted."""

    code = "AUTH_INVALID"


class ForbiddenError(S3segError):
    """The credentials are valid but do not allow this action (an anonymous user, or another role)."""

    code = "FORBIDDEN"


class NotFoundError(S3segError):
    """The object does not exist, or it belongs to another user: both cases give the same error."""

    code = "NOT_FOUND"


class FileTooLargeError(S3segError):
    """An upload exceeds the size limit."""

    code = "FILE_TOO_LARGE"


class InsufficientCreditsError(S3segError):
    """The account has fewer credits than the task costs."""

    code = "INSUFFICIENT_CREDITS"


class RateLimitedError(S3segError):
    """The user has reached the limit of their tier within the last 60 seconds.

    Args:
        message: Which limit was reached.
        limit: Actions allowed in any 60 seconds.
        retry_after: Seconds until the next action is allowed.
        action: The action that is limited, such as ``upload``.
    """

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, limit: int, retry_after: float, action: str = "") -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after
        self.action = action


class UnavailableError(S3segError):
    """A dependency (disk, database, object store) does not respond, or the service is at capacity.

    Args:
        message: Which dependency, and what went wrong.
        retry_after: Seconds to wait before trying again.
    """

    code = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LeaseLostError(S3segError):
    """This attempt no longer holds its task: stop working on it, and delete the objects that it stored."""


class ObjectExistsError(S3segError):
    """An object with this key already exists; nothing was written."""


class ConfigurationError(S3segError):
    """A setting does not work; the message names the setting, its value, and how to fix it."""

"""Every error that s3seg raises on purpose.

    S3segError                     code INTERNAL_ERROR
    ├── InvalidRequestError        code INVALID_REQUEST   what the caller gave cannot be used
    │   ├── ImageDecodeError       the image cannot be read; names it and says why
    │   ├── PromptError            the prompt is empty, too long, or not text
    │   └── MaskError              a mask or an RLE that does not fit its image
    ├── CheckpointError            code MODEL_NOT_LOADED  weights are missing, wrong or truncated
    │   └── CheckpointNotFoundError
    └── InferenceError             code INFERENCE_FAILED  the network could not finish

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

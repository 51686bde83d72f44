"""Names of stored objects: unguessable, under their owner's prefix, with a type that the suffix tells.

users/{user_id}/images/{32 hex}.png
users/{user_id}/results/{task_id}/{32 hex}.png
"""

from __future__ import annotations

import re
import secrets
from types import MappingProxyType

from s3seg.errors import InvalidRequestError

MAX_KEY_CHARS = 512
"""Length of an object key."""

MAX_SEGMENT_CHARS = 255
"""Length of each part between slashes, which is what file systems take."""

CONTENT_TYPES = MappingProxyType(
    {
        "png": "image/png",
        "jpg": "image/jpeg",
        "webp": "image/webp",
        "json": "application/json",
    }
)
"""Content type by suffix: the only kinds of object that we store."""

_SUFFIXES = {content_type: suffix for suffix, content_type in CONTENT_TYPES.items()}
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"  # never empty, never begins with a dot
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\.({'|'.join(CONTENT_TYPES)})", re.ASCII)


def new_image_key(user_id: str, content_type: str) -> str:
    """A fresh key for an upload; 128 random bits, so that knowing other keys does not help to guess it."""
    return check_key(f"users/{user_id}/images/{secrets.token_hex(16)}.{_suffix(content_type)}")


def new_result_key(user_id: str, task_id: str, content_type: str) -> str:
    """A fresh key for an attempt's mask or instances; no two attempts share one."""
    return check_key(f"users/{user_id}/results/{task_id}/{secrets.token_hex(16)}.{_suffix(content_type)}")


def check_key(key: str) -> str:
    """Return ``key`` if it can name an object.

    Raises:
        InvalidRequestError: If it or a segment is too long, it has an unknown suffix, or a segment that is empty
            or begins with a dot (so neither ``..`` nor an absolute path is a key).
    """
    too_long = len(key) > MAX_KEY_CHARS or max(map(len, key.split("/"))) > MAX_SEGMENT_CHARS
    if too_long or _KEY.fullmatch(key) is None:
        raise InvalidRequestError(f"not an object key: {key[:80]!r}")
    return key


def content_type_of(key: str) -> str:
    """The content type of an object, which its key's suffix decides.

    Raises:
        InvalidRequestError: If ``key`` is not a key.
    """
    return CONTENT_TYPES[check_key(key).rpartition(".")[2]]


def public_url(base: str, key: str) -> str:
    """The stable address of an object: the public base and the key."""
    return f"{base.rstrip('/')}/{check_key(key)}"


def key_of_url(base: str, url: str) -> str | None:
    """The key that ``url`` names under ``base``, or None if it is not exactly an address that we gave out."""
    prefix = base.rstrip("/") + "/"
    if not url.startswith(prefix):
        return None
    try:
        return check_key(url.removeprefix(prefix))
    except InvalidRequestError:
        return None


def _suffix(content_type: str) -> str:
    try:
        return _SUFFIXES[content_type]
    except KeyError:
        raise InvalidRequestError(
            f"cannot store content type {content_type!r}; known: {', '.join(_SUFFIXES)}"
        ) from None

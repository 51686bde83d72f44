"""Keys of stored objects: hard to guess, under the prefix of their owner, with a suffix that gives their type.

users/{user_id}/images/{32 hex}.png
users/{user_id}/results/{task_id}/{32 hex}.png
"""

from __future__ import annotations

import re
import secrets
from types import MappingProxyType

from s3seg.errors import InvalidRequestError

MAX_KEY_CHARS = 512
"""Most characters in an object key."""

MAX_SEGMENT_CHARS = 255
"""Most characters between two slashes of a key: the limit of common file systems."""

CONTENT_TYPES = MappingProxyType(
    {
        "png": "image/png",
        "jpg": "image/jpeg",
        "webp": "image/webp",
        "json": "application/json",
    }
)
"""Content type by suffix; other kinds of objects are not stored."""

CACHE_CONTROL = "private, max-age=60, must-revalidate"
"""How long caches may keep an object: in the reader's own cache only, and for a minute, so that it can be deleted."""

_SUFFIXES = {content_type: suffix for suffix, content_type in CONTENT_TYPES.items()}
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"  # never empty, never begins with a dot
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\.({'|'.join(CONTENT_TYPES)})", re.ASCII)
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IMAGE_KEY = rf"users/(?P<image_user>{_UUID})/images/[0-9a-f]{{32}}\.(?:png|jpg|webp)"
_RESULT_KEY = rf"users/(?P<result_user>{_UUID})/results/{_UUID}/[0-9a-f]{{32}}\.(?:png|json)"
_OWN_KEY = re.compile(rf"{_IMAGE_KEY}|{_RESULT_KEY}", re.ASCII)
_IMAGE_URL = re.compile(rf"(?P<base>.+)/(?P<key>{_IMAGE_KEY})", re.ASCII)


def new_image_key(user_id: str, content_type: str) -> str:
    """Return a new key for an upload. Its 128 random bits make it impossible to guess from other keys."""
    return image_key(user_id, f"{secrets.token_hex(16)}.{_suffix(content_type)}")


def image_key(user_id: str, name: str) -> str:
    """Return the key of a user's image from its last part.

    Raises:
        InvalidRequestError: If that is not a valid key.
    """
    return check_key(f"users/{user_id}/images/{name}")


def new_result_key(user_id: str, task_id: str, content_type: str) -> str:
    """Return a new key for a mask or a list of instances; no two attempts share a key."""
    return check_key(f"users/{user_id}/results/{task_id}/{secrets.token_hex(16)}.{_suffix(content_type)}")


def check_key(key: str) -> str:
    """Return ``key`` if it is a valid object key.

    Raises:
        InvalidRequestError: If the key or one of its segments is too long, its suffix is unknown, or a segment is
            empty or begins with a dot (so neither ``..`` nor an absolute path is a valid key).
    """
    too_long = len(key) > MAX_KEY_CHARS or max(map(len, key.split("/"))) > MAX_SEGMENT_CHARS
    if too_long or _KEY.fullmatch(key) is None:
        raise InvalidRequestError(f"not a valid object key: {key[:80]!r}")
    return key


def owner_of(key: str) -> str | None:
    """Return the id of the user that an image or a result belongs to, or None for any other key.

    Only keys of exactly the form that `new_image_key` and `new_result_key` return count: a bucket may hold objects of
    other programs, which are neither served nor collected as garbage.
    """
    found = _OWN_KEY.fullmatch(key)
    return None if found is None else found["image_user"] or found["result_user"]


def split_image_url(url: str) -> tuple[str, str] | None:
    """Split the URL of an image into its public base URL and its key, whatever the base; None if it has no such key.

    Workers use it to read the images of tasks: their settings may name another public base URL than those of the edge
    that stored the image.
    """
    found = _IMAGE_URL.fullmatch(url)
    return None if found is None else (found["base"], found["key"])


def content_type_of(key: str) -> str:
    """Return the content type of an object, which the suffix of its key decides.

    Raises:
        InvalidRequestError: If ``key`` is not a valid key.
    """
    return CONTENT_TYPES[check_key(key).rpartition(".")[2]]


def headers_of_put(key: str) -> dict[str, str]:
    """Return the headers with which a client stores an object under a key that is free."""
    return {"Content-Type": content_type_of(key), "Cache-Control": CACHE_CONTROL, "If-None-Match": "*"}


def public_url(base: str, key: str) -> str:
    """Return the stable URL of an object: the public base URL, followed by the key."""
    return f"{base.rstrip('/')}/{check_key(key)}"


def key_of_url(base: str, url: str) -> str | None:
    """Return the key of an object URL, or None if ``url`` is not exactly what `public_url` returns for some key."""
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
            f"cannot store content type {content_type!r}; supported: {', '.join(_SUFFIXES)}"
        ) from None

"""Values that ports take and give, beside the tasks themselves."""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task
from s3seg.tasks.object_keys import check_key, public_url
from s3seg.tasks.rate_limit import RateDecision

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls, as a verified token says.

    Attributes:
        user_id: UUID, canonical.
        tier: The tier that the token names; an account that exists knows better.
        anonymous: Signed in without an account of their own; may not submit.
        expires_at: When the token ends.
        token: The token itself, for stores that pass it on; never shown in a repr.
    """

    user_id: str
    tier: Tier | None = None
    anonymous: bool = False
    expires_at: datetime | None = None
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user's standing. ``credits`` equals the sum of the user's ledger, and is never negative."""

    user_id: str
    tier: Tier
    credits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One movement of credits.

    Attributes:
        user_id: Whose.
        delta: Credits added (or taken, if negative).
        reason: ``grant``, ``purchase``, ``segment`` (a debit), ``refund`` or ``adjust``.
        task_id: The task that it was for, if any; kept when the task is deleted.
        created_at: When.
    """

    user_id: str
    delta: int
    reason: str
    task_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image whose bytes are stored already, to be registered.

    Attributes:
        object_key: Under the caller's own prefix ``users/{user_id}/images/``.
        content_type: As its bytes say.
        size_bytes: 1 to 10 MiB.
        width, height: Pixels.
        project_id: One of the caller's projects, or None.
    """

    object_key: str
    content_type: str
    size_bytes: int
    width: int
    height: int
    project_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A registered image. ``image_url`` is derived by the store from its key, never supplied."""

    image_id: str
    user_id: str
    project_id: str | None
    object_key: str
    image_url: str
    content_type: str
    size_bytes: int
    width: int
    height: int
    created_at: datetime

    @classmethod
    def of(cls, image: NewImage, user_id: str, *, public_base: str, now: datetime) -> StoredImage:
        """A user's new image, as a store keeps it, with an id of its own.

        Raises:
            InvalidRequestError: The object key cannot be one, or is not under the user's prefix.
        """
        if not check_key(image.object_key).startswith(f"users/{user_id}/images/"):
            raise InvalidRequestError("the object key is not under the caller's prefix")
        return cls(
            image_id=str(uuid.uuid4()),
            user_id=user_id,
            project_id=image.project_id,
            object_key=image.object_key,
            image_url=public_url(public_base, image.object_key),
            content_type=image.content_type,
            size_bytes=image.size_bytes,
            width=image.width,
            height=image.height,
            created_at=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A name that images and tasks can be filed under."""

    project_id: str
    user_id: str
    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """An accepted order.

    Attributes:
        task: The task.
        created: False if an earlier request with the same idempotency key made it.
        rate: The state of the submit limit; None for a repeat, which is not counted.
    """

    task: Task
    created: bool
    rate: RateDecision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place in a list that is ordered newest first: just after the item with this time and id."""

    created_at: datetime
    item_id: str

    def encode(self) -> str:
        """An opaque, URL-safe form."""
        packed = struct.pack(">q", microseconds(self.created_at)) + uuid.UUID(self.item_id).bytes
        return base64.urlsafe_b64encode(packed).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read what `encode` wrote.

        Raises:
            InvalidRequestError: If it is anything else.
        """
        try:
            packed = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            (micros,) = struct.unpack(">q", packed[:8])
            return cls(created_at=from_microseconds(micros), item_id=str(uuid.UUID(bytes=packed[8:])))
        except (UnicodeEncodeError, binascii.Error, struct.error, ValueError, OverflowError):
            raise InvalidRequestError("cursor: not one that a list gave out") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """Part of a user's tasks, newest first.

    Attributes:
        tasks: At most ``limit`` of them.
        total: How many there are over all pages.
        next_cursor: Where the next page begins, or None if this is the last.
    """

    tasks: tuple[Task, ...]
    total: int
    next_cursor: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPage:
    """Part of a user's projects, newest first, and how many there are."""

    projects: tuple[Project, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a store knows about an object without reading it."""

    key: str
    size_bytes: int
    content_type: str
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStream:
    """An object being read: what it is, and its bytes in order."""

    info: ObjectInfo
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A key that checks signatures.

    Attributes:
        key_id: The ``kid`` that tokens name, or None for a shared secret.
        algorithm: The one algorithm that it is good for, such as ``ES256``.
        key: Public key or shared secret, as PyJWT takes it; never shown in a repr.
    """

    key_id: str | None
    algorithm: str
    key: Any = field(repr=False)


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970 of an aware datetime: exact, unlike a float of seconds."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(micros: int) -> datetime:
    """The inverse of `microseconds`; UTC."""
    return _EPOCH + timedelta(microseconds=micros)

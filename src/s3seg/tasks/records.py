"""The values that ports take and return, apart from the tasks themselves."""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from s3seg.errors import InvalidRequestError
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task
from s3seg.tasks.object_keys import owner_of, public_url
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.retention import keep_for

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The user who makes a request, as named by a verified token.

    Attributes:
        user_id: UUID, in canonical form.
        tier: The tier named in the token; only used for a new account, since an existing one has its own.
        anonymous: Whether the user signed in anonymously, and so may not submit.
        expires_at: When the token expires.
        token: The token itself, for stores that pass it on; never shown in a repr.
    """

    user_id: str
    tier: Tier | None = None
    anonymous: bool = False
    expires_at: datetime | None = None
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user's tier and credits. ``credits`` equals the sum of the user's ledger, and is never negative.

    Attributes:
        user_id: The user.
        tier: The plan, which decides the rate limits.
        credits: The balance.
        retention_s: Seconds after which images and results end at the latest, as the operator says; None for never.
    """

    user_id: str
    tier: Tier
    credits: int
    retention_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One change of a user's credits.

    Attributes:
        user_id: The user.
        delta: Credits added, or taken if negative.
        reason: ``grant``, ``purchase``, ``segment`` (a debit), ``refund`` or ``adjust``.
        task_id: The task that was debited or refunded, if any; kept when the task is deleted.
        created_at: The time of the change.
    """

    user_id: str
    delta: int
    reason: str
    task_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image to register, whose bytes have already been stored.

    Attributes:
        object_key: A key under the caller's prefix, ``users/{user_id}/images/``.
        content_type: The content type, as detected from the bytes.
        size_bytes: Size of the file, from 1 byte to 10 MiB.
        width, height: Size of the image, in pixels.
        project_id: One of the caller's projects, or None.
        keep_s: Seconds for which the image is kept, or None for the operator's time.
    """

    object_key: str
    content_type: str
    size_bytes: int
    width: int
    height: int
    project_id: str | None = None
    keep_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A registered image. The store derives ``image_url`` from the object key; callers cannot choose it.

    After ``expires_at``, if there is one, it is as if the image had been deleted, except that tasks that were submitted
    before still end.
    """

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
    expires_at: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Return whether the time of the image is over."""
        return self.expires_at is not None and self.expires_at <= now

    @classmethod
    def of(
        cls, image: NewImage, user_id: str, *, public_base: str, now: datetime, retention_s: int | None = None
    ) -> StoredImage:
        """Return the registered form of a user's new image, with a new id.

        Raises:
            InvalidRequestError: The object key is not that of an image of this user, or ``keep_s`` is not allowed.
        """
        keep_s = keep_for(image.keep_s, retention_s=retention_s)
        if owner_of(image.object_key) != user_id or not image.object_key.startswith(f"users/{user_id}/images/"):
            raise InvalidRequestError("the object key is not that of an image of the caller")
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
            expires_at=None if keep_s is None else now + timedelta(seconds=keep_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A named group of images and tasks."""

    project_id: str
    user_id: str
    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A named concept of a user.

    Attributes:
        definition: JSON values that only `ConceptDefinition.from_dict` reads.
    """

    concept_id: str
    user_id: str
    name: str
    definition: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The result of submitting a `TaskRequest`.

    Attributes:
        task: The accepted task.
        created: False if an earlier request with the same idempotency key created the task.
        rate: The state of the rate limit of submits; None for a repeated request, which is not counted.
    """

    task: Task
    created: bool
    rate: RateDecision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A position in a list that is sorted newest first: just after the item with this time and id."""

    created_at: datetime
    item_id: str

    def encode(self) -> str:
        """Return the cursor as an opaque, URL-safe text."""
        packed = struct.pack(">q", microseconds(self.created_at)) + uuid.UUID(self.item_id).bytes
        return base64.urlsafe_b64encode(packed).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Parse a text that `encode` returned.

        Raises:
            InvalidRequestError: If the text is not a cursor.
        """
        try:
            packed = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            (micros,) = struct.unpack(">q", packed[:8])
            return cls(created_at=from_microseconds(micros), item_id=str(uuid.UUID(bytes=packed[8:])))
        except (UnicodeEncodeError, binascii.Error, struct.error, ValueError, OverflowError):
            raise InvalidRequestError("cursor: not valid; pass the next_cursor of an earlier page") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """One page of a user's tasks, newest first.

    Attributes:
        tasks: At most ``limit`` tasks.
        total: Number of tasks on all pages together.
        next_cursor: Where the next page begins, or None if this is the last page.
    """

    tasks: tuple[Task, ...]
    total: int
    next_cursor: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPage:
    """One page of a user's projects, newest first, and the number of projects on all pages together."""

    projects: tuple[Project, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """Key, size, content type and age of a stored object."""

    key: str
    size_bytes: int
    content_type: str
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedPut:
    """A request with which anybody may store one object once, without other credentials.

    Attributes:
        url: Where to send a PUT request with the bytes; never shown in a repr, since it is a credential.
        headers: Headers that the request must have, as they are, beside ``Content-Length``.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStream:
    """An object that is being read: its info, and its bytes as chunks, in order."""

    info: ObjectInfo
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A key that verifies the signatures of tokens.

    Attributes:
        key_id: The ``kid`` in the header of tokens, or None for a shared secret.
        algorithm: The only algorithm that the key may be used with, such as ``ES256``.
        key: Public key or shared secret, in a form that PyJWT accepts; never shown in a repr.
    """

    key_id: str | None
    algorithm: str
    key: Any = field(repr=False)


def microseconds(moment: datetime) -> int:
    """Convert an aware datetime to whole microseconds since 1970; exact, unlike seconds as a float."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(micros: int) -> datetime:
    """Convert microseconds since 1970 to an aware datetime in UTC; the inverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=micros)

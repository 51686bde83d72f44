"""Uploads that go straight to the object store: the edge signs a request, and inspects what was stored with it.

An upload has no record until it is complete: its id is the last part of its object key. What is never completed is an
object without a row, which garbage collection removes.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from s3seg.edge.storing import register_picture, remove_objects
from s3seg.edge.uploads import Picture
from s3seg.errors import FileTooLargeError, ImageDecodeError, InvalidRequestError, NotFoundError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from s3seg.tasks.object_keys import content_type_of, image_key, new_image_key
from s3seg.tasks.ports import ObjectStore, TaskStore
from s3seg.tasks.records import Identity, PresignedPut, StoredImage

EXPIRES_S = 600
"""Seconds in which an upload can be sent."""

_CONTENT_TYPES = ("image/png", "image/jpeg", "image/webp")
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}\.(?:png|jpg|webp)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectUpload:
    """An upload that was begun: send ``put`` before ``expires_at``, then complete it."""

    upload_id: str
    put: PresignedPut
    expires_at: datetime


async def begin(caller: Identity, *, content_type: str, size_bytes: int, objects: ObjectStore) -> DirectUpload:
    """Sign a request that stores one picture of this type and size.

    Raises:
        FileTooLargeError: ``size_bytes`` is more than 10 MB.
        InvalidRequestError: The type is not one that can be uploaded.
        NotFoundError: The object store takes no such uploads.
    """
    if content_type not in _CONTENT_TYPES:
        raise InvalidRequestError(f"content_type must be one of {', '.join(_CONTENT_TYPES)}")
    if size_bytes > MAX_UPLOAD_BYTES:
        raise FileTooLargeError(f"the file is larger than {MAX_UPLOAD_BYTES} bytes ({MAX_UPLOAD_BYTES // 2**20} MB)")
    key = new_image_key(caller.user_id, content_type)
    expires_at = datetime.now(UTC) + timedelta(seconds=EXPIRES_S)
    put = await objects.presign_put(key, size_bytes=size_bytes, expires_s=EXPIRES_S)
    if put is None:
        raise NotFoundError("this service does not take uploads straight to its storage; use POST /api/v1/upload")
    return DirectUpload(upload_id=key.rpartition("/")[2], put=put, expires_at=expires_at)


async def complete(
    caller: Identity,
    upload_id: str,
    *,
    project_id: str | None,
    expires_in_s: int | None,
    inspect: Callable[[bytes], Awaitable[Picture]],
    objects: ObjectStore,
    tasks: TaskStore,
) -> StoredImage:
    """Inspect what was stored, and register it. A repeat returns the same image.

    Raises:
        NotFoundError: The caller has begun no such upload, or sent nothing.
        FileTooLargeError: The file has more than 10 MB; it is removed.
        ImageDecodeError: It is not a picture of the type that it was announced as; it is removed.
        InvalidRequestError: The project is not the caller's.
    """
    if _UPLOAD_ID.fullmatch(upload_id) is None:
        raise NotFoundError("no such upload")
    key = image_key(caller.user_id, upload_id)
    if (image := await tasks.find_image(caller, key)) is not None:
        return image
    try:
        data = await objects.get(key)
    except NotFoundError:
        raise NotFoundError("no such upload, or its bytes have not been sent") from None
    try:
        picture = await inspect(data)
        _require_type(picture, content_type_of(key))
    except (FileTooLargeError, ImageDecodeError):
        if (image := await tasks.find_image(caller, key)) is not None:  # a request at the same time has registered it
            return image
        await remove_objects([key], objects=objects)
        raise
    try:
        return await register_picture(
            caller,
            key,
            picture,
            size_bytes=len(data),
            project_id=project_id,
            expires_in_s=expires_in_s,
            tasks=tasks,
        )
    except InvalidRequestError:
        image = await tasks.find_image(caller, key)  # of a request that completed it at the same time
        if image is None:
            raise
        return image


def _require_type(picture: Picture, announced: str) -> None:
    if picture.content_type != announced:
        raise ImageDecodeError(f"file: announced as {announced}, but it is {picture.content_type}")

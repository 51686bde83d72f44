"""Storing pictures with their records, and removing objects that no record names any more."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from s3seg.edge.uploads import Picture, Upload
from s3seg.errors import S3segError, UnavailableError
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.ports import ObjectStore, TaskStore
from s3seg.tasks.records import Identity, NewImage, StoredImage

_log = logging.getLogger("s3seg.edge")


async def store_picture(
    caller: Identity, upload: Upload, picture: Picture, *, objects: ObjectStore, tasks: TaskStore
) -> StoredImage:
    """Store a picture under a new, unguessable key of the caller, and register it; if that is refused, remove it again.

    Args:
        caller: Owner of the image.
        upload: The file.
        picture: Result of `s3seg.edge.uploads.inspect`.
        objects: Stores the file.
        tasks: Registers the image.

    Raises:
        InvalidRequestError: The project is not the caller's.
        UnavailableError: A store does not answer.
    """
    key = new_image_key(caller.user_id, picture.content_type)
    await objects.put(key, upload.data)
    try:
        return await register_picture(
            caller,
            key,
            picture,
            size_bytes=len(upload.data),
            project_id=upload.project_id,
            expires_in_s=upload.expires_in_s,
            tasks=tasks,
        )
    except UnavailableError:  # it may be registered with only the reply lost: garbage collection decides
        raise
    except S3segError:
        await remove_objects([key], objects=objects)
        raise


async def register_picture(
    caller: Identity,
    key: str,
    picture: Picture,
    *,
    size_bytes: int,
    project_id: str | None,
    expires_in_s: int | None,
    tasks: TaskStore,
) -> StoredImage:
    """Register a picture that is stored under ``key``.

    Raises:
        InvalidRequestError: The project is not the caller's, the key is registered already, or the picture may not be
            kept for that time.
        UnavailableError: The task store does not answer; the picture may be registered.
    """
    return await tasks.register_image(
        caller,
        NewImage(
            object_key=key,
            content_type=picture.content_type,
            size_bytes=size_bytes,
            width=picture.width,
            height=picture.height,
            project_id=project_id,
            keep_s=expires_in_s,
        ),
    )


async def remove_objects(keys: Iterable[str], *, objects: ObjectStore) -> None:
    """Delete objects that no record names any more; garbage collection removes those that cannot be deleted now."""
    for key in keys:
        try:
            await objects.delete(key)
        except UnavailableError as err:
            _log.warning(
                "could not delete an object, leaving it to garbage collection: %s", err, extra={"object_key": key}
            )

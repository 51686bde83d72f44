"""Pictures on their way into a store, and objects on their way out of it."""

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
    """Store a picture under an unguessable key of the caller's, and register it; if that is refused, neither.

    Args:
        caller: Whose it becomes.
        upload: The file.
        picture: What `s3seg.edge.uploads.inspect` says of it.
        objects: Where it will lie.
        tasks: Where it is registered.

    Raises:
        InvalidRequestError: The project is not one of the caller's.
        UnavailableError: A store does not answer.
    """
    key = new_image_key(caller.user_id, picture.content_type)
    await objects.put(key, upload.data)
    try:
        return await tasks.register_image(
            caller,
            NewImage(
                object_key=key,
                content_type=picture.content_type,
                size_bytes=len(upload.data),
                width=picture.width,
                height=picture.height,
                project_id=upload.project_id,
            ),
        )
    except UnavailableError:  # it may be registered, and only the answer lost: garbage collection can tell
        raise
    except S3segError:
        await remove_objects([key], objects=objects)
        raise


async def remove_objects(keys: Iterable[str], *, objects: ObjectStore) -> None:
    """Delete objects that no row names any more; what cannot be deleted now is garbage for later."""
    for key in keys:
        try:
            await objects.delete(key)
        except UnavailableError as err:
            _log.warning("object stays until garbage is collected: %s", err, extra={"object_key": key})

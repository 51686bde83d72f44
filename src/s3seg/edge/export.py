"""All that a user has, as a tar archive that is made while it is sent.

    account.json                 id, tier and balance
    credits/000000.jsonl, ...    the history of the credits, up to 1000 changes a file
    projects/000001.jsonl, ...   projects
    concepts.json, webhooks.json
    images/{id}/image.json       and the picture
    results/{id}/result.json     and the mask, and the list of instances
    complete.json                the last file, of a whole archive

A tar archive needs no directory at its end, so that an archive of any length takes little memory. Images and results
are sorted newest first, each with a cursor: whoever has the beginning of an archive asks for what comes after the
last whole item, and appends it.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from s3seg.edge.concurrency import UserShares
from s3seg.errors import InvalidRequestError, NotFoundError, UnavailableError
from s3seg.tasks.model import Task
from s3seg.tasks.ports import ObjectStore, TaskStore
from s3seg.tasks.records import Cursor, Identity, StoredImage
from s3seg.tasks.webhooks import Webhooks

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_ITEMS_PER_READ = 100
_ENTRIES_PER_FILE = 1000
_SECTIONS = ("images", "results")


@dataclass(frozen=True, slots=True)
class ExportCursor:
    """A position in an archive: just after an image or a result.

    Attributes:
        section: ``images`` or ``results``.
        position: The position in that list.
    """

    section: str
    position: Cursor

    def encode(self) -> str:
        """Return the cursor as an opaque, URL-safe text."""
        return f"{self.section}.{self.position.encode()}"

    @classmethod
    def decode(cls, text: str) -> ExportCursor:
        """Parse a text that `encode` returned.

        Raises:
            InvalidRequestError: It is not a cursor.
        """
        section, _, position = text.partition(".")
        if section not in _SECTIONS:
            raise InvalidRequestError("after: not valid; pass the cursor of an image.json or result.json")
        return cls(section, Cursor.decode(position))


class AccountExport:
    """The archive of one user.

    Args:
        caller: The user.
        tasks: Has the rows.
        objects: Has the pictures and masks.
        webhooks: Has the webhooks; None if the service has none.
    """

    def __init__(
        self, caller: Identity, *, tasks: TaskStore, objects: ObjectStore, webhooks: Webhooks | None = None
    ) -> None:
        self._caller = caller
        self._tasks = tasks
        self._objects = objects
        self._webhooks = webhooks
        self._missing = 0

    async def chunks(self, *, after: ExportCursor | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the archive, or what comes after a position in it.

        Objects that are deleted meanwhile are left out. On any other failure it raises, so that the archive is visibly
        incomplete: it has no complete.json.

        Raises:
            UnavailableError: A store does not answer.
            AuthInvalidError: The caller's token expired meanwhile, where the task store checks it.
        """
        if after is None:
            async for chunk in self._account():
                yield chunk
        if after is None or after.section == "images":
            async for chunk in self._images(None if after is None else after.position):
                yield chunk
        async for chunk in self._results(after.position if after is not None and after.section == "results" else None):
            yield chunk
        yield _file("complete.json", _json({"completed_at": datetime.now(UTC), "objects_gone": self._missing}))
        yield _END

    async def _account(self) -> AsyncGenerator[bytes, None]:
        caller, tasks = self._caller, self._tasks
        account = await tasks.account(caller)
        described = {"user_id": account.user_id, "tier": account.tier, "credits": account.credits}
        yield _file("account.json", _json(described))
        offset = 0
        while entries := await tasks.credit_history(caller, limit=_ENTRIES_PER_FILE, offset=offset):
            lines = (
                {"delta": one.delta, "reason": one.reason, "task_id": one.task_id, "created_at": one.created_at}
                for one in entries
            )
            yield _file(f"credits/{offset:06d}.jsonl", _lines(lines))
            offset += len(entries)
        page = 1
        while projects := (await tasks.list_projects(caller, page=page, limit=_ITEMS_PER_READ)).projects:
            lines = (
                {"id": one.project_id, "name": one.name, "created_at": one.created_at, "updated_at": one.updated_at}
                for one in projects
            )
            yield _file(f"projects/{page:06d}.jsonl", _lines(lines))
            page += 1
        concepts = [
            {"id": one.concept_id, "name": one.name, **one.definition, "created_at": one.created_at}
            for one in await tasks.list_concepts(caller)
        ]
        yield _file("concepts.json", _json(concepts))
        webhooks = [] if self._webhooks is None else await self._webhooks.list_webhooks(caller)  # without secrets
        described = [{"id": one.webhook_id, "url": one.url, "created_at": one.created_at} for one in webhooks]
        yield _file("webhooks.json", _json(described))

    async def _images(self, after: Cursor | None) -> AsyncGenerator[bytes, None]:
        while images := await self._tasks.list_images(self._caller, limit=_ITEMS_PER_READ, after=after):
            for image in images:
                after = Cursor(created_at=image.created_at, item_id=image.image_id)
                folder = f"images/{image.image_id}"
                described = {**_described_image(image), "cursor": ExportCursor("images", after).encode()}
                yield _file(f"{folder}/image.json", _json(described))
                async for chunk in self._object(folder, image.object_key):
                    yield chunk

    async def _results(self, after: Cursor | None) -> AsyncGenerator[bytes, None]:
        while True:
            page = await self._tasks.list_tasks(self._caller, limit=_ITEMS_PER_READ, after=after)
            for task in page.tasks:
                after = Cursor(created_at=task.created_at, item_id=task.task_id)
                folder = f"results/{task.task_id}"
                described = {**_described_task(task), "cursor": ExportCursor("results", after).encode()}
                yield _file(f"{folder}/result.json", _json(described))
                for key in task.object_keys:
                    async for chunk in self._object(folder, key):
                        yield chunk
            if page.next_cursor is None:
                return

    async def _object(self, folder: str, key: str) -> AsyncGenerator[bytes, None]:
        try:
            opened = await self._objects.stream(key)
        except NotFoundError:
            self._missing += 1
            return
        size = opened.info.size_bytes
        yield _header(f"{folder}/{key.rpartition('/')[2]}", size, opened.info.modified_at)
        sent = 0
        async for chunk in opened.chunks:
            sent += len(chunk)
            yield chunk
        if sent != size:
            raise UnavailableError(f"an object has {sent} bytes instead of {size}")
        yield bytes(-size % _BLOCK)


def require_place(shares: UserShares, user_id: str) -> None:
    """Raise `UnavailableError` unless the user may be sent an archive now."""
    if not shares.has_room(user_id):
        raise UnavailableError(
            "an export of yours is in progress already, or too many of others are; try again in a while",
            retry_after=10,
        )


async def holding_place(
    shares: UserShares, user_id: str, chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of an archive, and hold a place of the user's meanwhile; see `require_place`."""
    require_place(shares, user_id)  # again: others may have begun since this one was asked for
    place = shares.take(user_id)
    try:
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    finally:
        shares.give_back(place)


def _described_image(image: StoredImage) -> dict[str, Any]:
    return {
        "id": image.image_id,
        "project_id": image.project_id,
        "image_url": image.image_url,
        "content_type": image.content_type,
        "size_bytes": image.size_bytes,
        "width": image.width,
        "height": image.height,
        "created_at": image.created_at,
        "expires_at": image.expires_at,
    }


def _described_task(task: Task) -> dict[str, Any]:
    return {
        "id": task.task_id,
        "project_id": task.project_id,
        "image_id": task.image_id,
        "source_image_url": task.source_image_url,
        "prompts": task.prompts,
        "visual": task.visual,
        "status": task.status,
        "mask_image_url": task.mask_image_url,
        "labels": task.labels,
        "metadata": dict(task.metadata),
        "error_message": task.error_message,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "expires_at": task.expires_at,
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=_plain).encode("utf-8", "replace")


def _lines(values: Iterable[object]) -> bytes:
    return b"".join(_json(value) + b"\n" for value in values)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"not JSON: {type(value).__name__}")


def _file(name: str, data: bytes) -> bytes:
    return b"".join((_header(name, len(data), datetime.now(UTC)), data, bytes(-len(data) % _BLOCK)))


def _header(name: str, size: int, modified_at: datetime) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(modified_at.timestamp()), 0o600
    return info.tobuf(format=tarfile.USTAR_FORMAT)

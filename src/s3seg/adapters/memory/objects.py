"""Stores objects in a dictionary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from s3seg.errors import NotFoundError, ObjectExistsError
from s3seg.tasks.object_keys import check_key, content_type_of, key_of_url, public_url
from s3seg.tasks.records import ObjectInfo, ObjectStream


class MemoryObjectStore:
    """An `ObjectStore` in a dictionary.

    Args:
        public_base: Base URL under which the objects are served.
    """

    takes_presigned_puts = False

    def __init__(self, *, public_base: str = "http://127.0.0.1:8000/files") -> None:
        self._base = public_base
        self._objects: dict[str, tuple[ObjectInfo, bytes]] = {}

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object, or raise ObjectExistsError if the key is taken."""
        info = ObjectInfo(
            key=check_key(key),
            size_bytes=len(body),
            content_type=content_type_of(key),
            modified_at=datetime.now(UTC),
        )
        if key in self._objects:
            raise ObjectExistsError(f"object {key} already exists")
        self._objects[key] = (info, bytes(body))
        return info

    async def get(self, key: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        return self._find(key)[1]

    async def stream(self, key: str) -> ObjectStream:
        """Return the object as a stream of chunks, or raise NotFoundError."""
        info, body = self._find(key)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 1 << 20):
                yield body[start : start + (1 << 20)]

        return ObjectStream(info=info, chunks=chunks())

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        self._objects.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Iterate over all objects whose key starts with ``prefix``."""
        for info, _ in list(self._objects.values()):
            if info.key.startswith(prefix):
                yield info

    async def discard_partial_writes(self, before: datetime) -> int:
        """Return 0: there are no partial writes in a dictionary."""
        return 0

    def url(self, key: str) -> str:
        """Return the public URL of an object."""
        return public_url(self._base, key)

    def key_of(self, url: str) -> str | None:
        """Return the key of an object from its public URL, or None for any other URL."""
        return key_of_url(self._base, url)

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        """Return None: the public URL serves every object."""
        return None

    async def presign_put(self, key: str, *, size_bytes: int, expires_s: int) -> None:
        """Return None: objects are stored through `put` only."""

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def _find(self, key: str) -> tuple[ObjectInfo, bytes]:
        try:
            return self._objects[key]
        except KeyError:
            raise NotFoundError("no such object") from None

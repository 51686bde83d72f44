"""Objects in a dictionary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from s3seg.errors import NotFoundError, ObjectExistsError
from s3seg.tasks.object_keys import check_key, content_type_of, key_of_url, public_url
from s3seg.tasks.records import ObjectInfo, ObjectStream


class MemoryObjectStore:
    """An `ObjectStore` in a dictionary."""

    def __init__(self, *, public_base: str = "http://127.0.0.1:8000/files") -> None:
        self._base = public_base
        self._objects: dict[str, tuple[ObjectInfo, bytes]] = {}

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """See `ObjectStore.put`."""
        info = ObjectInfo(
            key=check_key(key),
            size_bytes=len(body),
            content_type=content_type_of(key),
            modified_at=datetime.now(UTC),
        )
        if key in self._objects:
            raise ObjectExistsError(f"object {key} exists already")
        self._objects[key] = (info, bytes(body))
        return info

    async def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        return self._find(key)[1]

    async def stream(self, key: str) -> ObjectStream:
        """See `ObjectStore.stream`."""
        info, body = self._find(key)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 1 << 20):
                yield body[start : start + (1 << 20)]

        return ObjectStream(info=info, chunks=chunks())

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._objects.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        for info, _ in list(self._objects.values()):
            if info.key.startswith(prefix):
                yield info

    async def discard_partial_writes(self, before: datetime) -> int:
        """See `ObjectStore.discard_partial_writes`; a dictionary has none."""
        return 0

    def url(self, key: str) -> str:
        """See `ObjectStore.url`."""
        return public_url(self._base, key)

    def key_of(self, url: str) -> str | None:
        """See `ObjectStore.key_of`."""
        return key_of_url(self._base, url)

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        """See `ObjectStore.presign`; the public address serves."""
        return None

    async def check(self) -> None:
        """See `Part.check`."""

    async def aclose(self) -> None:
        """See `Part.aclose`."""

    def _find(self, key: str) -> tuple[ObjectInfo, bytes]:
        try:
            return self._objects[key]
        except KeyError:
            raise NotFoundError("no such object") from None

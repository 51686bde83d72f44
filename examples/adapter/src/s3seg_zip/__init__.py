"""An example adapter: an object store in a single zip file, for one process. Slow, but easy to copy."""

from __future__ import annotations

import asyncio
import os
import zipfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from s3seg.app.settings import Settings
from s3seg.errors import InvalidRequestError, NotFoundError, ObjectExistsError, UnavailableError
from s3seg.tasks.object_keys import check_key, content_type_of, key_of_url, public_url
from s3seg.tasks.records import ObjectInfo, ObjectStream

_T = TypeVar("_T")
_CHUNK = 1 << 20


class ZipObjectStore:
    """An `ObjectStore` in a zip file.

    Each change writes a complete new file and renames it over the old one, so a crash leaves the old file intact.

    Args:
        path: The zip file; created with the first object.
        public_base: Base URL under which the objects are served.
    """

    takes_presigned_puts = False

    def __init__(self, path: Path, *, public_base: str) -> None:
        self._path = path
        self._base = public_base
        self._lock = asyncio.Lock()

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object, or raise ObjectExistsError if the key is taken."""
        check_key(key)

        def add(objects: dict[str, bytes]) -> ObjectInfo:
            if key in objects:
                raise ObjectExistsError(f"object {key} already exists")
            objects[key] = body
            return _info(key, body)

        return await self._change(add)

    async def get(self, key: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        objects = await self._all()
        if key not in objects:
            raise NotFoundError("no such object")
        return objects[key]

    async def stream(self, key: str) -> ObjectStream:
        """Return the object as a stream of chunks, or raise NotFoundError."""
        body = await self.get(key)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), _CHUNK):
                yield body[start : start + _CHUNK]

        return ObjectStream(info=_info(key, body), chunks=chunks())

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        await self._change(lambda objects: objects.pop(key, None))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Iterate over all objects whose key starts with the prefix."""
        for key, body in (await self._all()).items():
            if key.startswith(prefix):
                yield _info(key, body)

    async def discard_partial_writes(self, before: datetime) -> int:
        """Remove a new file that a crash left behind before it was renamed."""
        partial = self._partial
        if not partial.exists() or partial.stat().st_mtime >= before.timestamp():
            return 0
        partial.unlink()
        return 1

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
        """Return if the zip file can be read, or raise UnavailableError."""
        await self._all()

    async def aclose(self) -> None:
        """Do nothing: no file is kept open."""

    @property
    def _partial(self) -> Path:
        return self._path.with_suffix(".partial")

    async def _all(self) -> dict[str, bytes]:
        return await asyncio.to_thread(self._read)

    async def _change(self, change: Callable[[dict[str, bytes]], _T]) -> _T:
        async with self._lock:
            objects = await asyncio.to_thread(self._read)
            result = change(objects)
            await asyncio.to_thread(self._write, objects)
            return result

    def _read(self) -> dict[str, bytes]:
        if not self._path.exists():
            return {}
        try:
            with zipfile.ZipFile(self._path) as file:
                return {name: file.read(name) for name in file.namelist()}
        except (OSError, zipfile.BadZipFile) as err:
            raise UnavailableError(f"cannot read the zip file: {err}") from err

    def _write(self, objects: dict[str, bytes]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._partial.open("wb") as raw:
                with zipfile.ZipFile(raw, "w") as file:
                    for name, body in objects.items():
                        file.writestr(name, body)
                raw.flush()
                os.fsync(raw.fileno())
            self._partial.replace(self._path)
        except OSError as err:
            raise UnavailableError(f"cannot write the zip file: {err}") from err


def from_settings(settings: Settings) -> ZipObjectStore:
    """Create the store from the settings; the entry point names this factory."""
    return ZipObjectStore(settings.data_dir / "objects.zip", public_base=settings.public_base_url)


def _info(key: str, body: bytes) -> ObjectInfo:
    try:
        content_type = content_type_of(key)
    except InvalidRequestError:
        raise NotFoundError("no such object") from None
    return ObjectInfo(key=key, size_bytes=len(body), content_type=content_type, modified_at=datetime.now(UTC))

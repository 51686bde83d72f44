"""Objects as files in a folder that several processes may share.

A put writes a temporary file, syncs it, links it under its final name (which fails if the name is taken) and
syncs the folder: a reader sees the whole object or none, whenever the power goes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from s3seg.errors import InvalidRequestError, NotFoundError, ObjectExistsError, UnavailableError
from s3seg.tasks.object_keys import check_key, content_type_of, key_of_url, public_url
from s3seg.tasks.records import ObjectInfo, ObjectStream

_CHUNK = 1 << 20
_PARTIAL = ".partial"  # no key begins with a dot, so this folder is never an object
_LISTED_AT_ONCE = 1000


class FileObjectStore:
    """An `ObjectStore` in a folder.

    Args:
        root: The folder; made if need be.
        public_base: Public base of object addresses; whoever serves it must send ``nosniff``.
    """

    def __init__(self, root: Path, *, public_base: str) -> None:
        self._root = root
        self._base = public_base

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """See `ObjectStore.put`."""
        path = self._path(key)
        return await asyncio.to_thread(self._put, key, path, body)

    async def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        path = self._existing_path(key)
        return await asyncio.to_thread(_read, path)

    async def stream(self, key: str) -> ObjectStream:
        """See `ObjectStore.stream`."""
        path = self._existing_path(key)
        info, first = await asyncio.to_thread(_read_first, key, path)
        return ObjectStream(info=info, chunks=_chunks(path, info.size_bytes, first))

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        try:
            path = self._path(key)
        except InvalidRequestError:
            return
        await asyncio.to_thread(_unlink, path)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        found = self._walk(prefix)
        while batch := await asyncio.to_thread(lambda: list(islice(found, _LISTED_AT_ONCE))):
            for info in batch:
                yield info

    async def discard_partial_writes(self, before: datetime) -> int:
        """See `ObjectStore.discard_partial_writes`."""
        return await asyncio.to_thread(self._discard_partial_writes, before)

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
        """See `Part.check`: writes a file, and removes it."""
        await asyncio.to_thread(self._check)

    async def aclose(self) -> None:
        """See `Part.aclose`."""

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _existing_path(self, key: str) -> Path:
        try:
            return self._path(key)
        except InvalidRequestError:
            raise NotFoundError("no such object") from None

    def _put(self, key: str, path: Path, body: bytes) -> ObjectInfo:
        partial = self._root / _PARTIAL / secrets.token_hex(16)
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(partial, body)
            try:
                _make_folders(path.parent, self._root)
                os.link(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(path.parent)
            return _info(key, path.stat())
        except FileExistsError:
            raise ObjectExistsError(f"object {key} exists already") from None
        except OSError as err:
            raise UnavailableError(f"the object store cannot be written: {err.strerror}") from err

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        # begin at the folder that the prefix surely lies in, rather than at the root
        folder = prefix.rpartition("/")[0]
        if folder and any(not part or part.startswith(".") for part in folder.split("/")):
            return
        for path, folders, names in os.walk(self._root / folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                file = Path(path, name)
                key = file.relative_to(self._root).as_posix()
                if not key.startswith(prefix):
                    continue
                try:
                    yield _info(check_key(key), file.stat())
                except (InvalidRequestError, FileNotFoundError):
                    continue  # not ours, or deleted meanwhile

    def _discard_partial_writes(self, before: datetime) -> int:
        discarded = 0
        for partial in (self._root / _PARTIAL).glob("*"):
            try:
                if partial.stat().st_mtime < before.timestamp():
                    partial.unlink()
                    discarded += 1
            except FileNotFoundError:
                continue
        return discarded

    def _check(self) -> None:
        probe = self._root / _PARTIAL / secrets.token_hex(16)
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(probe, b"check")
            probe.unlink()
        except OSError as err:
            raise UnavailableError(f"the object store cannot be written: {err.strerror}") from err


def _write_synced(path: Path, body: bytes) -> None:
    with path.open("xb") as file:
        try:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)  # a full disk keeps no litter
            raise


def _make_folders(folder: Path, root: Path) -> None:
    """Make a folder and sync those above it, so that a synced file cannot lose its way."""
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root)
    folder.mkdir(parents=True, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders, and syncs names with the file
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size_bytes=stat.st_size,
        content_type=content_type_of(key),
        modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError("no such object") from None
    except OSError as err:
        raise UnavailableError(f"the object store cannot be read: {err.strerror}") from err


def _read_first(key: str, path: Path) -> tuple[ObjectInfo, bytes]:
    try:
        with path.open("rb") as file:
            return _info(key, os.fstat(file.fileno())), file.read(_CHUNK)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError("no such object") from None
    except OSError as err:
        raise UnavailableError(f"the object store cannot be read: {err.strerror}") from err


def _read_at(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(_CHUNK)
    except OSError as err:
        raise UnavailableError(f"the object store cannot be read: {err.strerror}") from err


async def _chunks(path: Path, size_bytes: int, first: bytes) -> AsyncIterator[bytes]:
    # no file stays open between chunks, so a reader that goes away leaks nothing; objects never change
    yield first
    for start in range(len(first), size_bytes, _CHUNK):
        yield await asyncio.to_thread(_read_at, path, start)


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as err:
        if err.errno in (errno.EISDIR, errno.EPERM) and path.is_dir():
            return
        raise UnavailableError(f"the object store cannot be written: {err.strerror}") from err

"""Stores objects as files in a folder, which several processes may share.

A put writes a temporary file, syncs it, links it under its final name (which fails if the name is taken) and syncs
the folder. Readers therefore see either the whole object or none, even after a power failure.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from s3seg.errors import InvalidRequestError, NotFoundError, ObjectExistsError, UnavailableError
from s3seg.tasks.object_keys import check_key, content_type_of, key_of_url, public_url
from s3seg.tasks.private_files import make_private, make_private_folder, open_private
from s3seg.tasks.records import ObjectInfo, ObjectStream

_CHUNK = 1 << 20
_PARTIAL = ".partial"  # no key begins with a dot, so this folder is never an object
_LIST_BATCH = 1000


class FileObjectStore:
    """An `ObjectStore` that keeps objects as files in a folder.

    A folder that is deleted or replaced while the store is in use, such as a volume that is no longer mounted, is
    noticed: everything but `aclose` fails until it is back, or until `aclose`. A missing object of a missing folder
    must not look like one that was deleted, and none must be stored where it would be lost.

    Args:
        root: The folder; created if it does not exist, for its owner only.
        public_base: Base URL under which the objects are served; the server must send
            ``X-Content-Type-Options: nosniff``.
    """

    takes_presigned_puts = False

    def __init__(self, root: Path, *, public_base: str) -> None:
        self._root = root
        self._base = public_base
        self._private = False  # whether the permissions of a folder of an earlier version have been checked
        self._identity: tuple[int, int] | None = None  # of the folder that was used first

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object, or raise ObjectExistsError if the key is taken."""
        path = self._path(key)
        return await asyncio.to_thread(self._put, key, path, body)

    async def get(self, key: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        path = self._existing_path(key)
        return await asyncio.to_thread(self._read, path)

    async def stream(self, key: str) -> ObjectStream:
        """Return the object as a stream of chunks, or raise NotFoundError."""
        path = self._existing_path(key)
        info, first = await asyncio.to_thread(self._read_first, key, path)
        return ObjectStream(info=info, chunks=_chunks(path, info.size_bytes, first))

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        try:
            path = self._path(key)
        except InvalidRequestError:
            return
        await asyncio.to_thread(self._delete, path)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Iterate over all objects whose key starts with ``prefix``."""
        found = self._walk(prefix)
        while batch := await asyncio.to_thread(lambda: list(islice(found, _LIST_BATCH))):
            for info in batch:
                yield info

    async def discard_partial_writes(self, before: datetime) -> int:
        """Remove unfinished writes older than ``before``, and return how many there were."""
        return await asyncio.to_thread(self._discard_partial_writes, before)

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
        """Check that the folder is writable, by writing and removing a file."""
        await asyncio.to_thread(self._check)

    async def aclose(self) -> None:
        """Forget which folder was used; no file or thread is kept open."""
        self._identity = None

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _existing_path(self, key: str) -> Path:
        try:
            return self._path(key)
        except InvalidRequestError:
            raise NotFoundError("no such object") from None

    def _require_same_folder(self) -> None:
        """Raise `UnavailableError` if the folder that was used first is no longer there."""
        known = self._identity  # before the folder is looked at: another thread may make it, and use it first
        try:
            found = self._root.stat()
        except (FileNotFoundError, NotADirectoryError):
            if known is None:
                return
            raise UnavailableError("the folder of the object store was deleted; restore it") from None
        except OSError as err:
            raise UnavailableError(f"cannot read from the object store: {err.strerror}") from err
        self._identity = self._identity or (found.st_dev, found.st_ino)
        if (found.st_dev, found.st_ino) != self._identity:
            raise UnavailableError("the folder of the object store was replaced by another; restart the service")

    def _read(self, path: Path) -> bytes:
        self._require_same_folder()
        return _read(path)

    def _read_first(self, key: str, path: Path) -> tuple[ObjectInfo, bytes]:
        self._require_same_folder()
        return _read_first(key, path)

    def _delete(self, path: Path) -> None:
        self._require_same_folder()
        _unlink(path)

    def _put(self, key: str, path: Path, body: bytes) -> ObjectInfo:
        partial = self._root / _PARTIAL / secrets.token_hex(16)
        try:
            self._make_root()
            _write_synced(partial, body)
            try:
                _make_folders(path.parent, self._root)
                os.link(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(path.parent)
            return _info(key, path.stat())
        except FileExistsError:
            raise ObjectExistsError(f"object {key} already exists") from None
        except OSError as err:
            raise _not_writable(err) from err

    def _make_root(self) -> None:
        self._require_same_folder()
        if not self._private:
            make_private(self._root)
            self._private = True
        make_private_folder(self._root / _PARTIAL)
        self._require_same_folder()

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        self._require_same_folder()
        # start at the deepest folder that contains all matches, rather than at the root
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
                    continue  # not an object of ours, or deleted in the meantime

    def _discard_partial_writes(self, before: datetime) -> int:
        self._require_same_folder()
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
            self._make_root()
            _write_synced(probe, b"check")
            probe.unlink()
        except OSError as err:
            raise _not_writable(err) from err


def _write_synced(path: Path, body: bytes) -> None:
    with open(path, "xb", opener=open_private) as file:
        try:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)  # leave no partial file on a full disk
            raise


def _make_folders(folder: Path, root: Path) -> None:
    """Create a folder and sync its parents, so that the path to a synced file survives a power failure."""
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root)
    make_private_folder(folder)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders, and syncs the name together with the file
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
    with _reading():
        return path.read_bytes()


def _read_first(key: str, path: Path) -> tuple[ObjectInfo, bytes]:
    with _reading(), path.open("rb") as file:
        return _info(key, os.fstat(file.fileno())), file.read(_CHUNK)


def _read_at(path: Path, start: int) -> bytes:
    with _reading(), path.open("rb") as file:
        file.seek(start)
        return file.read(_CHUNK)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError("no such object") from None
    except OSError as err:
        raise UnavailableError(f"cannot read from the object store: {err.strerror}") from err


def _not_writable(err: OSError) -> UnavailableError:
    return UnavailableError(f"cannot write to the object store: {err.strerror}")


async def _chunks(path: Path, size_bytes: int, first: bytes) -> AsyncIterator[bytes]:
    # no file stays open between chunks, so a reader that stops early leaks nothing; objects never change
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
        raise _not_writable(err) from err

"""Backup and restore of an installation whose tasks are in SQLite: database, objects and signing key.

A backup is a folder: ``tasks.sqlite3``, ``objects/``, ``signing-key.pem``, ``revoked.json`` if tokens were revoked,
and ``backup.json``, which is written last.
It is taken while the services run. The database is copied first, as one consistent snapshot; an object is stored
before the row that refers to it, so all objects of the snapshot exist by then, except those deleted since.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from s3seg import __version__
from s3seg.adapters.files import FileObjectStore
from s3seg.app.parts import Parts
from s3seg.errors import ConfigurationError, InvalidRequestError, NotFoundError, ObjectExistsError, UnavailableError
from s3seg.tasks.object_keys import owner_of
from s3seg.tasks.ports import ObjectStore
from s3seg.tasks.private_files import make_private_folder, open_private

_DATABASE = "tasks.sqlite3"
_DATABASE_SUFFIXES = ("", "-wal", "-journal")  # the file, and the logs that SQLite keeps beside it
_KEY = "signing-key.pem"
_REVOKED = "revoked.json"
_INFO = "backup.json"
_FORMAT = 1
_REFERENCED = "SELECT object_key FROM images UNION SELECT object_key FROM task_objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupInfo:
    """What a backup holds.

    Attributes:
        created_at: When the database was copied, ISO 8601.
        s3seg: The version that made it.
        public_base_url: Base URL of the stored images, which stays part of them.
        tasks: Number of tasks.
        objects: Number of stored objects that the database refers to.
        missing: How many of these are not in the backup, because they were deleted while it was taken.
    """

    created_at: str
    s3seg: str
    public_base_url: str
    tasks: int
    objects: int
    missing: int


async def back_up(parts: Parts, folder: Path, *, progress: Callable[[int], None] = lambda copied: None) -> BackupInfo:
    """Write a backup into a folder, which is new, empty, or an earlier backup to bring up to date.

    If it is killed, an earlier backup in the folder remains as it was, but for objects added to it.

    Args:
        parts: The running installation; its tasks must be in SQLite. Objects may be in any store.
        folder: Where to write; created for its owner only, since a backup holds the signing key.
        progress: Called with the number of objects copied so far.

    Raises:
        ConfigurationError: The tasks are not in SQLite.
        InvalidRequestError: The folder holds something else.
        UnavailableError: Something cannot be read or written.
    """
    database = _database_of(parts)
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not (folder / _INFO).exists()
        and not (folder / "objects").is_dir()
    ):
        raise InvalidRequestError(f"{folder} is neither empty nor a backup; name a new folder")
    make_private_folder(folder)
    await parts.accounts.check()  # makes the database if there is none yet
    created_at = datetime.now(UTC)
    partial = folder / f".{_DATABASE}.partial"
    await asyncio.to_thread(_snapshot, database, partial)
    copies = FileObjectStore(folder / "objects", public_base=parts.settings.public_base_url)
    kept = await _copy_objects(parts.objects, copies, progress)
    _copy_file(parts.settings.data_dir / "auth" / _KEY, folder / _KEY)
    _copy_file(parts.settings.data_dir / "auth" / _REVOKED, folder / _REVOKED)
    tasks, referenced, base = await asyncio.to_thread(_contents, partial)
    info = BackupInfo(
        created_at=created_at.isoformat(timespec="seconds"),
        s3seg=__version__,
        public_base_url=base or parts.settings.public_base_url,
        tasks=tasks,
        objects=len(referenced),
        missing=len(referenced - kept),
    )
    partial.replace(folder / _DATABASE)
    _write(folder / _INFO, json.dumps({"format": _FORMAT, **asdict(info)}, indent=2).encode())
    async for old in copies.list("users/"):  # objects that were deleted since the last backup end here too
        if old.key not in kept:
            await copies.delete(old.key)
    return info


async def restore(parts: Parts, folder: Path, *, progress: Callable[[int], None] = lambda copied: None) -> BackupInfo:
    """Restore a backup into an installation that has no tasks yet. Can be repeated if it is interrupted.

    Raises:
        ConfigurationError: The tasks of the installation are not in SQLite.
        InvalidRequestError: The folder is no backup or is damaged, or the installation has a database or another
            signing key.
        UnavailableError: Something cannot be read or written.
    """
    database = _database_of(parts)
    info = _read_info(folder)
    for suffix in _DATABASE_SUFFIXES:  # SQLite would apply the log of another database to the restored one
        file = database.with_name(database.name + suffix)
        if file.exists():
            raise InvalidRequestError(f"{file} exists; restore into an empty S3SEG_DATA_DIR")
    key = parts.settings.data_dir / "auth" / _KEY
    saved_key = folder / _KEY
    if key.exists() and not (saved_key.exists() and key.read_bytes() == saved_key.read_bytes()):
        raise InvalidRequestError(f"{key} is not the signing key of the backup; move it away first")
    await asyncio.to_thread(_require_sound, folder / _DATABASE)
    copies = FileObjectStore(folder / "objects", public_base=info.public_base_url)
    await _copy_objects(copies, parts.objects, progress)
    _copy_file(saved_key, key)
    _copy_file(folder / _REVOKED, key.with_name(_REVOKED))
    make_private_folder(database.parent)
    partial = database.with_name(f".{database.name}.partial")
    await asyncio.to_thread(_snapshot, folder / _DATABASE, partial)
    partial.replace(database)  # last: until now there is no installation
    return info


def _database_of(parts: Parts) -> Path:
    settings = parts.settings
    if settings.task_store != "sqlite":
        raise ConfigurationError(
            f"S3SEG_TASK_STORE={settings.task_store}: only installations with their tasks in SQLite are backed up "
            "here; Supabase makes backups of its own, and stored objects are in the bucket"
        )
    return settings.data_dir / _DATABASE


def _snapshot(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, while others write to it."""
    try:
        target.unlink(missing_ok=True)
        os.close(open_private(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    except (OSError, sqlite3.Error) as err:
        raise UnavailableError(f"cannot copy {source} to {target}: {err}") from err


def _contents(database: Path) -> tuple[int, frozenset[str], str | None]:
    """Return the number of tasks, the keys of all objects that rows refer to, and the base URL of the last edge."""
    with closing(sqlite3.connect(database)) as db:
        (tasks,) = db.execute("SELECT count(*) FROM tasks").fetchone()
        base = db.execute("SELECT value FROM meta WHERE key = 'public_base_url'").fetchone()
        return tasks, frozenset(key for (key,) in db.execute(_REFERENCED)), base and base[0]


def _require_sound(database: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as err:
        found = str(err)
    if found != "ok":
        raise InvalidRequestError(f"{database} is damaged: {found}")


async def _copy_objects(source: ObjectStore, target: ObjectStore, progress: Callable[[int], None]) -> set[str]:
    """Copy all objects of users that the target lacks, and return the keys of those that the source has."""
    there = {info.key async for info in target.list("users/")}
    found: set[str] = set()
    copied = 0
    async for info in source.list("users/"):
        if owner_of(info.key) is None:  # another program's, in a shared bucket
            continue
        if info.key not in there:
            try:
                await target.put(info.key, await source.get(info.key))
            except NotFoundError:  # deleted meanwhile
                continue
            except ObjectExistsError:  # by a run beside this one; objects never change
                pass
            copied += 1
            progress(copied)
        found.add(info.key)
    return found


def _copy_file(source: Path, target: Path) -> None:
    if source.exists():
        make_private_folder(target.parent)
        _write(target, source.read_bytes())


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner only."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with open(partial, "wb", opener=open_private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _read_info(folder: Path) -> BackupInfo:
    try:
        found: dict[str, Any] = json.loads((folder / _INFO).read_bytes())
        form = found.pop("format")
        if form != _FORMAT:
            raise InvalidRequestError(
                f"{folder} was written by s3seg {found['s3seg']}, in format {form}; upgrade s3seg"
            )
        return BackupInfo(**found)
    except FileNotFoundError:
        what = f"{folder} is not a complete backup (no {_INFO})" if folder.is_dir() else f"there is no folder {folder}"
        raise InvalidRequestError(what) from None
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InvalidRequestError(f"{folder / _INFO} is damaged: {err}") from err

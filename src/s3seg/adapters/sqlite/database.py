"""Access to an SQLite file from many coroutines: a writer thread with group commit, and reader threads.

Writes that are waiting at the same time share one transaction and one fsync. Each runs in a savepoint of its own, so
a write that fails is rolled back and does not affect the others. Several processes may have the file open;
``BEGIN IMMEDIATE`` and the busy timeout make their writes take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from s3seg.adapters.sqlite.schema import TASKS, Schema, migrate
from s3seg.errors import S3segError, UnavailableError
from s3seg.tasks.private_files import make_private, make_private_folder, open_private

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_JOB_ERRORS = (sqlite3.IntegrityError, sqlite3.ProgrammingError)  # caused by one job, not by the disk or a lock
_REASONS = {
    sqlite3.SQLITE_BUSY: "is locked by another process; try again",
    sqlite3.SQLITE_LOCKED: "is locked; try again",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_READONLY: "cannot be written: it is read-only",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "is not an SQLite file; restore it from a backup",
    sqlite3.SQLITE_PERM: "cannot be opened: permission denied",
}
_MAX_WRITE_BATCH = 64  # writes in one transaction; limits how long other processes wait
_MAX_READ_BATCH = 16  # reads in one transaction; limits how long a read waits for the others
_SLOW_INLINE_READ_S = 0.01  # an inline read that takes longer had to wait for the disk
_INLINE_PAUSE_S = 1.0  # how long inline reads are avoided after a slow one
_INLINE_LOOK_S = 0.25  # how often inline reads look whether the file is still there: 5 % of a poll if each one did


class _FileReplacedError(UnavailableError):
    """The path no longer leads to the file that was opened."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


_Jobs = SimpleQueue[_Job | None]  # None: stop
_Settled = tuple[_Job, Any, BaseException | None]  # a job, its result, and its error


@dataclass(frozen=True, slots=True)
class _Threads:
    writes: _Jobs
    reads: _Jobs
    writer: threading.Thread
    readers: tuple[threading.Thread, ...]


class Database:
    """An SQLite file. Threads and connections are opened on first use, and again on the first use after `aclose`.

    A file that is deleted or replaced while it is open is noticed: all reads and writes fail until it is back, or
    until `aclose`, since the changes of others would no longer be seen. Only `read_inline` may still read the old file
    for a quarter of a second.

    Args:
        path: The file; it and its folder are created if they do not exist, for their owner only.
        schema: The tables that it has.
        busy_timeout_s: Seconds to wait for a write of another process before raising `UnavailableError`.
        readers: Number of reader threads.
    """

    def __init__(self, path: Path, *, schema: Schema = TASKS, busy_timeout_s: float = 5.0, readers: int = 2) -> None:
        self._path = path
        self._schema = schema
        self._identity: tuple[int, int] | None = None  # of the file that was opened first
        self._busy_timeout_s = busy_timeout_s
        self._readers = readers
        self._lock = threading.Lock()
        self._threads: _Threads | None = None
        self._inline: sqlite3.Connection | None = None
        self._inline_lock = threading.Lock()
        self._inline_again_at = 0.0
        self._inline_looked_at = -math.inf

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` in a write transaction, which is committed and synced to disk when this returns.

        An exception of ``work`` is raised here, and its changes are rolled back. If the caller is cancelled, the
        work may still be done.

        Raises:
            UnavailableError: If the database cannot be written (locked, full, read-only, deleted).
        """
        return await self._run(self._running().writes, work)

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` on a consistent snapshot, which includes every write that has returned.

        Raises:
            UnavailableError: If the database cannot be read.
        """
        return await self._run(self._running().reads, work)

    async def read_inline(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` like `read`, but on the caller's thread if possible; for a single lookup by key.

        A lookup takes about 25 microseconds inline and 210 through a reader thread, because of the two switches of
        thread. After a slow lookup, and on a lock, an error or a concurrent inline read, a reader thread is used
        instead, so that the event loop is not blocked.

        Raises:
            UnavailableError: If the database cannot be read.
        """
        if self._inline is None:
            value = await self.read(work)  # creates the file if it does not exist, and reports errors
            await asyncio.to_thread(self._open_inline)
            return value
        began = time.monotonic()
        if began < self._inline_again_at or not self._inline_lock.acquire(blocking=False):
            return await self.read(work)
        try:
            if self._inline is not None:
                if began >= self._inline_looked_at + _INLINE_LOOK_S:
                    self._require_same_file()
                    self._inline_looked_at = began
                return work(self._inline)
        except (sqlite3.Error, _FileReplacedError):
            self._close_inline()
        finally:
            if (now := time.monotonic()) - began > _SLOW_INLINE_READ_S:
                self._inline_again_at = now + _INLINE_PAUSE_S
            self._inline_lock.release()
        return await self.read(work)

    async def check(self) -> None:
        """Return if the file is writable, or raise UnavailableError."""
        await self.write(_touch)

    async def aclose(self) -> None:
        """Finish pending reads and writes, then close the file; a later use opens it again."""
        with self._inline_lock:
            self._close_inline()
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is None:
            return
        threads.writes.put(None)
        for _ in threads.readers:
            threads.reads.put(None)
        for thread in (threads.writer, *threads.readers):
            await asyncio.to_thread(thread.join)
        with self._lock:
            if self._threads is None:
                self._identity = None

    def _open_inline(self) -> None:
        with self._inline_lock:
            if self._inline is None:
                with contextlib.suppress(S3segError, sqlite3.Error):  # reader threads are used instead, and report it
                    self._inline = self._open(read_only=True)
                    self._inline.execute("PRAGMA busy_timeout = 0")

    def _close_inline(self) -> None:
        if self._inline is not None:
            self._inline.close()
            self._inline = None

    @staticmethod
    async def _run(jobs: _Jobs, work: Callable[[sqlite3.Connection], _T]) -> _T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        jobs.put(_Job(work, loop, future))
        return await future

    def _running(self) -> _Threads:
        with self._lock:
            if self._threads is None:
                writes: _Jobs = SimpleQueue()
                reads: _Jobs = SimpleQueue()
                self._threads = _Threads(
                    writes,
                    reads,
                    self._start(writes, "s3seg-sqlite-writer", writing=True),
                    tuple(
                        self._start(reads, f"s3seg-sqlite-reader-{number}", writing=False)
                        for number in range(self._readers)
                    ),
                )
            return self._threads

    def _start(self, jobs: _Jobs, name: str, *, writing: bool) -> threading.Thread:
        # daemon: an interrupted transaction is rolled back, so the process can exit without waiting for it
        thread = threading.Thread(target=self._serve, args=(jobs, writing), name=name, daemon=True)
        thread.start()
        return thread

    def _serve(self, jobs: _Jobs, writing: bool) -> None:
        limit = _MAX_WRITE_BATCH if writing else _MAX_READ_BATCH
        connection: sqlite3.Connection | None = None
        stopping = False
        while not stopping:
            batch, stopping = _next_batch(jobs, limit)
            if not batch:
                continue
            try:
                if connection is None:
                    connection = self._open(read_only=not writing)
                self._require_same_file()
                settled = _write_batch(connection, batch) if writing else _read_batch(connection, batch)
                if writing:
                    self._require_same_file()  # what was written to a deleted file is lost
            except BaseException as err:
                # nothing of the batch is kept; the next batch gets a new connection
                if connection is not None:
                    connection.close()
                    connection = None
                _settle([(job, None, _unavailable(err, self._schema.name)) for job in batch])
            else:
                _settle(settled)
        if connection is not None:
            connection.close()

    def _open(self, *, read_only: bool) -> sqlite3.Connection:
        self._require_same_file()  # SQLite would create an empty file in place of one that was deleted
        self._create()
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._use_wal(connection)
            # FULL: an accepted task survives a power failure, not just a crash of the process
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._schema.synced else 'NORMAL'}")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection, self._schema)
            if read_only:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        try:
            make_private_folder(self._path.parent)
            with contextlib.suppress(FileExistsError):
                os.close(open_private(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR))
            # SQLite gives its other files the permissions of the first
            for suffix in ("", "-wal", "-shm"):
                make_private(self._path.with_name(self._path.name + suffix))
            found = self._path.stat()
        except OSError as err:
            raise UnavailableError(f"cannot open or create {self._schema.name}: {err.strerror}") from err
        with self._lock:
            self._identity = self._identity or (found.st_dev, found.st_ino)

    def _require_same_file(self) -> None:
        if self._identity is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            raise self._replaced() from None
        if (found.st_dev, found.st_ino) != self._identity:
            raise self._replaced()

    def _replaced(self) -> _FileReplacedError:
        return _FileReplacedError(
            f"{self._schema.name} was deleted or replaced while the service ran; restore it, then restart the service"
        )

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # switching to WAL ignores the busy timeout when two processes do it at once on a new file
        give_up = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return


def _next_batch(jobs: _Jobs, limit: int) -> tuple[list[_Job], bool]:
    """Wait for a job, and return it with the others that are waiting; the flag says whether to stop after them."""
    job = jobs.get()
    batch: list[_Job] = []
    while job is not None:
        batch.append(job)
        if len(batch) == limit:
            return batch, False
        try:
            job = jobs.get_nowait()
        except Empty:
            return batch, False
    return batch, True


def _read_batch(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Settled]:
    settled: list[_Settled] = []
    connection.execute("BEGIN")
    for job in batch:
        try:
            value, error = job.work(connection), None
        except BaseException as err:
            if _affects_all_jobs(err):
                raise
            value, error = None, err
        settled.append((job, value, error))
    connection.execute("COMMIT")
    return settled


def _write_batch(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Settled]:
    settled: list[_Settled] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job in batch:
            connection.execute("SAVEPOINT job")
            try:
                value, error = job.work(connection), None
            except BaseException as err:
                if _affects_all_jobs(err):
                    raise
                value, error = None, err
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            settled.append((job, value, error))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return settled


def _affects_all_jobs(err: BaseException) -> bool:
    """Return whether the disk or a lock caused the error, so that the whole batch has to fail."""
    return isinstance(err, sqlite3.Error) and not isinstance(err, _JOB_ERRORS)


def _settle(settled: list[_Settled]) -> None:
    """Resolve the futures of jobs, waking each event loop only once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Settled]] = {}
    for item in settled:
        by_loop.setdefault(item[0].loop, []).append(item)
    for loop, items in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has been closed, so nobody waits any more
            loop.call_soon_threadsafe(_resolve, items)


def _resolve(settled: list[_Settled]) -> None:
    for job, value, error in settled:
        if job.future.cancelled():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)


def _unavailable(err: BaseException, name: str) -> BaseException:
    """Return the error for callers, whose words reach clients: SQLite's own may quote names and paths."""
    if isinstance(err, sqlite3.Error):
        _log.warning("%s is not available: %s", name, err)
        primary_code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        wrapped = UnavailableError(f"{name} {_REASONS.get(primary_code, 'cannot be used now')}")
        wrapped.__cause__ = err
        return wrapped
    return err


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO meta VALUES ('checked', datetime('now')) ON CONFLICT DO UPDATE SET value = excluded.value"
    )

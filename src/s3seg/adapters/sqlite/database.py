"""One SQLite file, shared by threads and processes: a writer thread, reader threads, and group commit.

Writes that wait for the writer together share one transaction and one fsync, each under a savepoint of its
own: a refused one leaves no trace, the others go ahead. Several processes may have the file open;
``BEGIN IMMEDIATE`` and the busy timeout make them take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from s3seg.adapters.sqlite.schema import migrate
from s3seg.errors import S3segError, UnavailableError

_T = TypeVar("_T")
_MISTAKES = (sqlite3.IntegrityError, sqlite3.ProgrammingError)  # of one job, not of the disk
_WRITES_TOGETHER = 64  # that share a transaction at most; bounds how long other processes wait
_READS_TOGETHER = 16  # likewise; bounds how long one waits for the others
_SLOW_GLANCE_S = 0.01  # a page that is not in memory, on a slow disk
_REST_S = 1.0  # after which the disk may have recovered


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


_Jobs = SimpleQueue[_Job | None]  # None: stop
_Settled = tuple[_Job, Any, BaseException | None]


@dataclass(frozen=True, slots=True)
class _Threads:
    writes: _Jobs
    reads: _Jobs
    writer: threading.Thread
    readers: tuple[threading.Thread, ...]


class Database:
    """Access to the file. Threads and connections begin with the first use, and after `aclose` with the next.

    Args:
        path: The file; it and its folder are made if need be.
        busy_timeout_s: How long to wait for another process's write before `UnavailableError`.
        readers: Reader threads.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0, readers: int = 2) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._readers = readers
        self._lock = threading.Lock()
        self._threads: _Threads | None = None
        self._at_hand: sqlite3.Connection | None = None
        self._glancing = threading.Lock()
        self._no_glance_before = 0.0

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` in a write transaction; committed and on disk when this returns.

        What ``work`` raises is raised here, and leaves no trace. If the caller is cancelled, the work may
        still be done.

        Raises:
            UnavailableError: If the database cannot be written (locked, full, read-only, gone).
        """
        return await self._run(self._running().writes, work)

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` on one consistent state, which includes every write that has returned.

        Raises:
            UnavailableError: If the database cannot be read.
        """
        return await self._run(self._running().reads, work)

    async def read_inline(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """`read` with one statement that finds few rows by a key: at once, on the caller's own thread.

        Such a statement takes less time than changing threads twice. Where it would not (a lock, a slow disk, an
        error, another read_inline), a reader thread does it, as any other read.

        Raises:
            UnavailableError: If the database cannot be read.
        """
        if self._at_hand is None:
            value = await self.read(work)  # makes the file if need be, and tells what is wrong with it
            await asyncio.to_thread(self._open_at_hand)
            return value
        began = time.monotonic()
        if began < self._no_glance_before or not self._glancing.acquire(blocking=False):
            return await self.read(work)
        try:
            if self._at_hand is not None:
                return work(self._at_hand)
        except sqlite3.Error:
            self._close_at_hand()
        finally:
            if (now := time.monotonic()) - began > _SLOW_GLANCE_S:
                self._no_glance_before = now + _REST_S
            self._glancing.release()
        return await self.read(work)

    async def check(self) -> None:
        """Return if the file can be written; see `Part.check`."""
        await self.write(_touch)

    async def aclose(self) -> None:
        """Finish what waits, then close. A later use opens the file again."""
        with self._glancing:
            self._close_at_hand()
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is None:
            return
        threads.writes.put(None)
        for _ in threads.readers:
            threads.reads.put(None)
        for thread in (threads.writer, *threads.readers):
            await asyncio.to_thread(thread.join)

    def _open_at_hand(self) -> None:
        with self._glancing:
            if self._at_hand is None:
                with contextlib.suppress(S3segError, sqlite3.Error):  # reader threads go on, and tell
                    self._at_hand = self._open(read_only=True)
                    self._at_hand.execute("PRAGMA busy_timeout = 0")

    def _close_at_hand(self) -> None:
        if self._at_hand is not None:
            self._at_hand.close()
            self._at_hand = None

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
        # daemon: a killed transaction rolls back, so an exit need not wait for it
        thread = threading.Thread(target=self._serve, args=(jobs, writing), name=name, daemon=True)
        thread.start()
        return thread

    def _serve(self, jobs: _Jobs, writing: bool) -> None:
        most = _WRITES_TOGETHER if writing else _READS_TOGETHER
        connection: sqlite3.Connection | None = None
        stopping = False
        while not stopping:
            batch, stopping = _next_batch(jobs, most)
            if not batch:
                continue
            try:
                if connection is None:
                    connection = self._open(read_only=not writing)
                settled = _write_together(connection, batch) if writing else _read_together(connection, batch)
            except BaseException as err:
                # Nothing of the batch is committed. A fresh connection next time, so that we recover.
                if connection is not None:
                    connection.close()
                    connection = None
                _settle([(job, None, _unavailable(err)) for job in batch])
            else:
                _settle(settled)
        if connection is not None:
            connection.close()

    def _open(self, *, read_only: bool) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise UnavailableError(f"cannot make the folder of the task database: {err.strerror}") from err
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            self._use_wal(connection)
            # FULL: an accepted task survives a power cut, not just a crash
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection)
            if read_only:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # The switch to WAL does not honour the busy timeout when two processes try it on a new file.
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


def _next_batch(jobs: _Jobs, most: int) -> tuple[list[_Job], bool]:
    """Wait for a job, take along what waits with it; True once told to stop."""
    job = jobs.get()
    batch: list[_Job] = []
    while job is not None:
        batch.append(job)
        if len(batch) == most:
            return batch, False
        try:
            job = jobs.get_nowait()
        except Empty:
            return batch, False
    return batch, True


def _read_together(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Settled]:
    settled: list[_Settled] = []
    connection.execute("BEGIN")
    for job in batch:
        try:
            value, error = job.work(connection), None
        except BaseException as err:
            if _is_trouble(err):
                raise
            value, error = None, err
        settled.append((job, value, error))
    connection.execute("COMMIT")
    return settled


def _write_together(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Settled]:
    settled: list[_Settled] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job in batch:
            connection.execute("SAVEPOINT job")
            try:
                value, error = job.work(connection), None
            except BaseException as err:
                if _is_trouble(err):
                    raise  # the whole batch cannot be trusted to commit
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


def _is_trouble(err: BaseException) -> bool:
    """Whether it is the disk or a lock that failed, rather than this job."""
    return isinstance(err, sqlite3.Error) and not isinstance(err, _MISTAKES)


def _settle(settled: list[_Settled]) -> None:
    """Tell those who wait, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Settled]] = {}
    for one in settled:
        by_loop.setdefault(one[0].loop, []).append(one)
    for loop, those in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, those)


def _tell(settled: list[_Settled]) -> None:
    for job, value, error in settled:
        if job.future.cancelled():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)


def _unavailable(err: BaseException) -> BaseException:
    if isinstance(err, sqlite3.Error):
        wrapped = UnavailableError(f"the task database does not answer: {err}")
        wrapped.__cause__ = err
        return wrapped
    return err


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO meta VALUES ('checked', datetime('now')) ON CONFLICT DO UPDATE SET value = excluded.value"
    )

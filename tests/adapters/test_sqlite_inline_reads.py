"""Reads on the caller's own thread, and what happens when they are slow or fail."""

import sqlite3
import threading

import pytest

from s3seg.errors import InvalidRequestError, NotFoundError, UnavailableError
from s3seg.testing.harness import outcome_for
from tests.adapters.harnesses import SqliteHarness
from tests.adapters.sqlite_helpers import add_account, run

pytestmark = pytest.mark.anyio


async def test_an_inline_read_sees_every_write_that_has_returned(database):
    for n in range(5):
        await database.write(add_account(f"u{n}"))
        assert await database.read_inline(run("SELECT count(*) FROM accounts")) == [(n + 1,)]


async def test_a_second_inline_read_runs_on_the_callers_thread(database):
    def thread(db):
        return threading.get_ident()

    assert await database.read_inline(thread) != threading.get_ident()  # creates the file, which takes long
    assert await database.read_inline(thread) == threading.get_ident()


async def test_a_failed_inline_read_is_repeated_by_a_reader_thread(database):
    await database.read_inline(run("SELECT 1"))
    asked = []

    def fails_here_once(db):
        asked.append(threading.get_ident())
        if len(asked) == 1:
            raise sqlite3.OperationalError("database is locked")
        return "read"

    assert await database.read_inline(fails_here_once) == "read"
    assert asked[0] == threading.get_ident() != asked[1]


async def test_after_a_slow_inline_read_reader_threads_are_used_for_a_while(database, monkeypatch):
    await database.read_inline(run("SELECT 1"))
    now = 1000.0
    monkeypatch.setattr("s3seg.adapters.sqlite.database.time.monotonic", lambda: now)

    def takes(seconds):
        def work(db):
            nonlocal now
            now += seconds
            return threading.get_ident()

        return work

    assert await database.read_inline(takes(0.5)) == threading.get_ident()
    assert await database.read_inline(takes(0.0)) != threading.get_ident()
    now += 2
    assert await database.read_inline(takes(0.0)) == threading.get_ident()


async def test_an_exception_of_an_inline_read_reaches_the_caller(database):
    await database.read_inline(run("SELECT 1"))

    def refuse(db):
        raise InvalidRequestError("no")

    with pytest.raises(InvalidRequestError):
        await database.read_inline(refuse)


async def test_an_inline_read_cannot_write(database):
    await database.read_inline(run("SELECT 1"))
    with pytest.raises(UnavailableError, match="read-only"):
        await database.read_inline(add_account("a"))


async def test_a_closed_database_can_be_read_inline_again(database):
    await database.write(add_account("a"))
    for _ in range(2):
        await database.read_inline(run("SELECT 1"))
        await database.aclose()
        assert await database.read_inline(run("SELECT count(*) FROM accounts")) == [(1,)]


async def test_inline_reads_look_for_the_file_four_times_a_second(database, monkeypatch):
    await database.read_inline(run("SELECT 1"))
    now = 1000.0
    monkeypatch.setattr("s3seg.adapters.sqlite.database.time.monotonic", lambda: now)
    await database.read_inline(run("SELECT 1"))
    looks = 0
    look = database._require_same_file

    def counted():
        nonlocal looks
        looks += 1
        look()

    monkeypatch.setattr(database, "_require_same_file", counted)
    for _ in range(100):
        await database.read_inline(run("SELECT 1"))
        now += 0.01
    assert 3 <= looks <= 4


async def test_a_task_is_made_again_only_when_its_row_has_changed(tmp_path):
    harness = SqliteHarness(tmp_path / "tasks.sqlite3")
    user = await harness.user()
    task = await harness.submit(user)
    first = await harness.store.get_task(user, task.task_id)
    assert await harness.store.get_task(user, task.task_id) is first
    lease = await harness.claim(task)
    claimed = await harness.store.get_task(user, task.task_id)
    assert (claimed.status, claimed.attempts.number) == ("processing", 1)
    await harness.queue.renew(lease, lease_s=60)
    await harness.pass_time(1)
    await harness.queue.finish(lease, outcome_for(task))
    done = await harness.store.get_task(user, task.task_id)
    assert done == await harness.queue.get_task(task.task_id)
    assert len(done.object_keys) == 2
    await harness.store.delete_task(user, task.task_id)
    with pytest.raises(NotFoundError):
        await harness.store.get_task(user, task.task_id)
    await harness.aclose()

"""The SQLite file: several processes, disk errors, and what the constraints of the tables reject."""

import asyncio
import os
import sqlite3
import subprocess
import sys

import pytest

from s3seg.adapters.sqlite import Database
from s3seg.adapters.sqlite.schema import TASKS, Schema
from s3seg.errors import ConfigurationError, InvalidRequestError, UnavailableError
from tests.adapters.sqlite_helpers import add_account, add_task, hold_the_writer, move, path_of, run

pytestmark = pytest.mark.anyio


async def test_nothing_is_opened_before_the_first_use(tmp_path):
    Database(tmp_path / "data" / "x.sqlite3")
    assert list(tmp_path.iterdir()) == []


async def test_a_write_is_read_by_every_later_read(database):
    await database.write(add_account("u"))
    assert await database.read(run("SELECT user_id FROM accounts")) == [("u",)]


async def test_a_reader_cannot_write(database):
    with pytest.raises(UnavailableError):
        await database.read(add_account("u"))
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(0,)]


async def test_a_refused_write_is_rolled_back_and_does_not_affect_others(database):
    def refuse(db):
        add_account("refused")(db)
        raise InvalidRequestError("no")

    async def many():
        return await asyncio.gather(
            *(database.write(refuse if n % 3 == 0 else add_account(f"u{n}")) for n in range(90)),
            return_exceptions=True,
        )

    answers = await many()
    assert [isinstance(answer, InvalidRequestError) for answer in answers] == [n % 3 == 0 for n in range(90)]
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(60,)]


async def test_waiting_writes_share_a_transaction(database):
    await database.check()
    statements = []
    first, release = await hold_the_writer(database)

    def traced(name):
        def work(db):
            db.set_trace_callback(statements.append)
            add_account(name)(db)

        return work

    rest = [asyncio.ensure_future(database.write(traced(f"u{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, *rest)
    assert sum(statement == "COMMIT" for statement in statements) == 1
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(20,)]


async def test_a_locked_database_is_unavailable_and_then_recovers(database):
    await database.write(add_account("a"))
    other = sqlite3.connect(path_of(database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"):
        await database.write(add_account("b"))
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(1,)]
    other.execute("ROLLBACK")
    other.close()
    await database.write(add_account("b"))
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(2,)]


async def test_a_full_disk_is_unavailable_and_then_recovers(database):
    await database.write(add_account("a"))

    def fill(db):
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        for n in range(10_000):
            add_account(f"{n}" * 50)(db)

    with pytest.raises(UnavailableError, match="full"):
        await database.write(fill)
    await database.write(add_account("b"))
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(2,)]


@pytest.mark.parametrize("change", ["deleted", "replaced"])
@pytest.mark.parametrize("kind", ["check", "write", "read", "read_inline"])
async def test_a_file_that_is_deleted_or_replaced_is_noticed_and_not_created_anew(
    database, tmp_path, kind, change, monkeypatch
):
    monkeypatch.setattr("s3seg.adapters.sqlite.database._INLINE_LOOK_S", 0)
    await database.write(add_account("a"))
    for _ in range(2):
        await database.read_inline(run("SELECT 1"))
    path, aside = path_of(database), tmp_path / "aside"
    path.rename(aside)
    if change == "replaced":
        path.write_bytes(b"another file")
    use = {
        "check": database.check,
        "write": lambda: database.write(add_account("b")),
        "read": lambda: database.read(run("SELECT user_id FROM accounts")),
        "read_inline": lambda: database.read_inline(run("SELECT user_id FROM accounts")),
    }[kind]
    for _ in range(3):
        with pytest.raises(UnavailableError, match="deleted or replaced") as refused:
            await use()
        assert str(tmp_path) not in str(refused.value)
    assert path.exists() == (change == "replaced")
    aside.replace(path)  # it is back
    await use()
    assert ("a",) in await database.read(run("SELECT user_id FROM accounts"))


async def test_a_write_into_a_deleted_file_is_not_reported_as_done(database):
    await database.check()

    def delete_meanwhile(db):
        add_account("a")(db)
        path_of(database).unlink()

    with pytest.raises(UnavailableError, match="deleted or replaced"):
        await database.write(delete_meanwhile)


async def test_messages_have_no_words_of_sqlite(database, caplog):
    for broken in ("SELECT * FROM no_such_table", "SELECT 1 FROM accounts WHERE secret_column = 5"):
        with pytest.raises(UnavailableError) as refused:
            await database.read(run(broken))
        assert str(refused.value) == "the task database cannot be used now"
    assert "no such table: no_such_table" in caplog.text


async def test_a_file_of_version_1_is_upgraded_and_keeps_its_rows(tmp_path):
    path = tmp_path / "tasks.sqlite3"
    old = Database(path, schema=Schema(TASKS.name, TASKS.versions[:1]))
    await old.write(add_account("a"))
    await old.aclose()
    database = Database(path)
    assert await database.read(run("SELECT user_id FROM accounts")) == [("a",)]
    assert await database.read(run("SELECT count(*) FROM recent_actions")) == [(0,)]
    await database.aclose()


async def test_a_path_that_cannot_be_a_database_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "tasks.sqlite3", tmp_path):
        database = Database(path)
        with pytest.raises(UnavailableError):
            await database.check()
        await database.aclose()


async def test_a_file_that_is_not_a_database_is_unavailable(tmp_path):
    path = tmp_path / "tasks.sqlite3"
    path.write_bytes(b"not a database at all" * 100)
    database = Database(path, busy_timeout_s=0.1)
    with pytest.raises(UnavailableError):
        await database.check()
    await database.aclose()


async def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "tasks.sqlite3"
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    database = Database(path)
    with pytest.raises(ConfigurationError, match="upgrade s3seg"):
        await database.check()
    await database.aclose()


async def test_a_closed_database_opens_again(database):
    await database.write(add_account("a"))
    await database.aclose()
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(1,)]


async def test_closing_finishes_pending_writes(database):
    writes = [asyncio.ensure_future(database.write(add_account(f"u{n}"))) for n in range(30)]
    await asyncio.sleep(0)
    await database.aclose()
    await asyncio.gather(*writes)
    assert await database.read(run("SELECT count(*) FROM accounts")) == [(30,)]


async def test_a_cancelled_caller_does_not_affect_others(database):
    await database.check()
    cancelled, release = await hold_the_writer(database)
    cancelled.cancel()
    release.set()
    await database.write(add_account("b"))
    assert ("b",) in await database.read(run("SELECT user_id FROM accounts"))


def test_processes_that_start_together_create_one_database(tmp_path):
    script = (
        "import asyncio, sys, pathlib\n"
        "from s3seg.adapters.sqlite import Database, SqliteAccounts\n"
        "async def main():\n"
        "    accounts = SqliteAccounts(Database(pathlib.Path(sys.argv[1])))\n"
        "    for _ in range(20):\n"
        "        await accounts.adjust('u', 1)\n"
        "    await accounts.aclose()\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "data" / "tasks.sqlite3"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    database = sqlite3.connect(path)
    assert database.execute("SELECT credits FROM accounts").fetchall() == [(10 + 80,)]
    database.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE accounts SET credits = -1",
        "UPDATE ledger SET delta = 5",
        "DELETE FROM ledger",
        "INSERT INTO ledger VALUES (NULL, 'u', 1, 'refund', 'paid', 0)",
        "INSERT INTO ledger VALUES (NULL, 'u', -1, 'segment', 'paid', 0)",
        "INSERT INTO ledger VALUES (NULL, 'u', -100, 'segment', 'new', 0)",
        "INSERT INTO ledger VALUES (NULL, 'nobody', 1, 'grant', NULL, 0)",
        "INSERT INTO ledger VALUES (NULL, 'u', 1, 'gift', NULL, 0)",
        "UPDATE tasks SET status = 'pending' WHERE task_id = 'working'",
        "UPDATE tasks SET status = 'done', mask_image_url = 'x' WHERE task_id = 'waiting'",
        "UPDATE tasks SET status = 'done' WHERE task_id = 'working'",
        "UPDATE tasks SET status = 'error' WHERE task_id = 'working'",
        "UPDATE tasks SET status = 'error', error_message = 'x' WHERE task_id = 'finished'",
        "UPDATE tasks SET status = 'processing' WHERE task_id = 'finished'",
        "UPDATE tasks SET mask_image_url = 'other' WHERE task_id = 'finished'",
        "UPDATE tasks SET status = 'lost' WHERE task_id = 'waiting'",
        "INSERT INTO leases VALUES ('nowhere', 1, 0, 'w', 0)",
    ],
)
async def test_the_tables_reject_invalid_changes(database, sql):
    def arrange(db):
        add_account("u", 10)(db)
        move("u", -1, "segment", "paid")(db)
        move("u", 1, "refund", "paid")(db)
        add_task("waiting")(db)
        add_task("working", "processing")(db)
        add_task("finished", "done", mask_image_url="m")(db)

    await database.write(arrange)
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(run(sql))
    assert await database.read(run("SELECT credits, tasks FROM accounts")) == [(10, 3)]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT rowid FROM tasks WHERE user_id = 'u' ORDER BY created_at DESC, task_id DESC LIMIT 20 OFFSET 0",
            "USING COVERING INDEX tasks_user",
        ),
        (
            "SELECT rowid FROM tasks WHERE user_id = 'u' AND (created_at, task_id) < (5, 'x') "
            "ORDER BY created_at DESC, task_id DESC LIMIT 20 OFFSET 0",
            "USING COVERING INDEX tasks_user",
        ),
        ("SELECT 1 FROM tasks WHERE status = 'pending' ORDER BY created_at LIMIT 1", "INDEX tasks_pending"),
        (
            "SELECT 1 FROM tasks WHERE status IN ('pending', 'processing') AND deadline <= 5",
            "INDEX tasks_live",
        ),
        ("SELECT 1 FROM leases WHERE expires_at <= 5", "INDEX leases_expiry"),
        ("DELETE FROM recent_actions WHERE newest <= 5", "INDEX recent_actions_newest"),
    ],
)
async def test_frequent_queries_use_an_index(database, query, index):
    plan = await database.read(run(f"EXPLAIN QUERY PLAN {query}"))
    details = " / ".join(row[3] for row in plan)
    assert index in details
    assert "TEMP B-TREE" not in details

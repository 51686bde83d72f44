"""An SQLite database of tasks, and statements for it."""

import asyncio
import threading

import pytest

from s3seg.adapters.sqlite import Database


@pytest.fixture
async def database(tmp_path):
    database = Database(tmp_path / "data" / "tasks.sqlite3", busy_timeout_s=0.2)
    yield database
    await database.aclose()


def path_of(database):
    return database._path


def add_account(name, credits=0):
    def work(db):
        db.execute("INSERT INTO accounts (user_id, tier, created_at) VALUES (?, 'free', 0)", (name,))
        if credits:
            move(name, credits)(db)

    return work


def move(name, delta, reason="grant", task=None):
    def work(db):
        db.execute(
            "INSERT INTO ledger (user_id, delta, reason, task_id, created_at) VALUES (?, ?, ?, ?, 0)",
            (name, delta, reason, task),
        )

    return work


def add_task(task, status="pending", **columns):
    values = {
        "task_id": task,
        "user_id": "u",
        "source_image_url": "x",
        "prompts": '["cat"]',
        "status": status,
        "fingerprint": "f",
        "created_at": 0,
        "updated_at": 0,
        "deadline": 1,
        **columns,
    }
    marks = ", ".join("?" * len(values))

    def work(db):
        db.execute(f"INSERT INTO tasks ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))

    return work


def run(sql, *values):
    return lambda db: db.execute(sql, values).fetchall()


async def hold_the_writer(database):
    """Start a write that blocks the writer thread; return it, and the event that lets it finish."""
    started, release = threading.Event(), threading.Event()

    def hold(db):
        started.set()
        assert release.wait(60), "nobody released the writer"

    write = asyncio.ensure_future(database.write(hold))
    await asyncio.to_thread(started.wait)
    return write, release

"""Converts between rows of SQLite and values of the domain, and writes the changes that several methods share."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cachetools import LRUCache
from pydantic_core import from_json

from s3seg.adapters.sqlite import retention
from s3seg.adapters.sqlite.accounts import book
from s3seg.adapters.sqlite.policy import Policy
from s3seg.tasks import state_machine
from s3seg.tasks.model import Attempts, Task, TaskStatus
from s3seg.tasks.records import Concept, Project, StoredImage, from_microseconds, microseconds

_SELECT_TASK = """
    SELECT t.task_id, t.user_id, t.project_id, t.image_id, t.source_image_url, t.prompts, t.status,
           t.mask_image_url, t.labels, t.metadata, t.error_code, t.error_message,
           t.created_at, t.updated_at, t.deadline,
           l.attempt, l.released, l.worker, l.expires_at,
           (SELECT json_group_array(o.object_key) FROM task_objects o WHERE o.task_id = t.task_id),
           t.visual, t.request_id, t.keep_s
    FROM tasks t LEFT JOIN leases l ON l.task_id = t.task_id
"""
_SELECT_TASK_BY_ID = f"{_SELECT_TASK} WHERE t.task_id = ?"
_SELECT_IMAGE = """
    SELECT image_id, user_id, project_id, object_key, image_url, content_type, size_bytes, width, height,
           created_at, expires_at
    FROM images
"""
_SELECT_PROJECT = "SELECT project_id, user_id, name, created_at, updated_at FROM projects"


class KnownTasks:
    """Tasks that were made of rows, each kept beside its row.

    A client polls a task many times while its row stays the same, and comparing two rows takes much less time than
    making a task: 20 us of a poll, or 10 %. May be used from several threads.

    Args:
        capacity: Number of tasks that are kept.
    """

    def __init__(self, capacity: int = 1000) -> None:
        self._known: LRUCache[str, tuple[Sequence[Any], Task]] = LRUCache(capacity)
        self._lock = threading.Lock()

    def task_of(self, row: Sequence[Any]) -> Task:
        """Return the task of a row."""
        with self._lock:
            same = self._known.get(row[0])
        if same is not None and same[0] == row:
            return same[1]
        task = _task(row)
        with self._lock:
            self._known[row[0]] = (row, task)
        return task


def bindable(text: str) -> str:
    """Return ``text``, or "" (which matches no row) if SQLite cannot store it because of a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return ""
    return text


def select_tasks(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Task]:
    """Return the tasks ``t`` (with leases ``l``) that match a constant SQL condition."""
    return [_task(row) for row in connection.execute(f"{_SELECT_TASK} {where}", values)]


def find_task(connection: sqlite3.Connection, task_id: str, *, known: KnownTasks | None = None) -> Task | None:
    """Return the task with this id, or None; one that ``known`` has is not made again."""
    row = connection.execute(_SELECT_TASK_BY_ID, (bindable(task_id),)).fetchone()
    if row is None:
        return None
    return _task(row) if known is None else known.task_of(row)


def find_image(connection: sqlite3.Connection, column: str, value: str) -> StoredImage | None:
    """Return the image whose unique ``column`` has this value, or None."""
    found = select_images(connection, f"WHERE {column} = ?", (bindable(value),))
    return found[0] if found else None


def select_images(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[StoredImage]:
    """Return the images that match a constant SQL condition."""
    return [_image(row) for row in connection.execute(f"{_SELECT_IMAGE} {where}", values)]


def _image(row: Sequence[Any]) -> StoredImage:
    return StoredImage(
        image_id=row[0],
        user_id=row[1],
        project_id=row[2],
        object_key=row[3],
        image_url=row[4],
        content_type=row[5],
        size_bytes=row[6],
        width=row[7],
        height=row[8],
        created_at=from_microseconds(row[9]),
        expires_at=None if row[10] is None else from_microseconds(row[10]),
    )


def select_projects(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Project]:
    """Return the projects that match a constant SQL condition."""
    return [
        Project(
            project_id=row[0],
            user_id=row[1],
            name=row[2],
            created_at=from_microseconds(row[3]),
            updated_at=from_microseconds(row[4]),
        )
        for row in connection.execute(f"{_SELECT_PROJECT} {where}", values)
    ]


def select_concepts(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Concept]:
    """Return the concepts that match a constant SQL condition."""
    columns = "SELECT concept_id, user_id, name, definition, created_at FROM concepts"
    return [
        Concept(
            concept_id=row[0],
            user_id=row[1],
            name=row[2],
            definition=from_json(row[3]),
            created_at=from_microseconds(row[4]),
        )
        for row in connection.execute(f"{columns} {where}", values)
    ]


def close_account(connection: sqlite3.Connection, user_id: str, *, policy: Policy) -> datetime:
    """Mark an account as deleted, cancel its tasks, and remove its webhooks; return when it was first marked."""
    now = policy.now()
    closed_at = retention.mark_closed(connection, user_id, now=microseconds(now))
    live = "WHERE t.user_id = ? AND t.status IN ('pending', 'processing')"
    for task in select_tasks(connection, live, (user_id,)):
        save_move(connection, task, state_machine.cancel(task, now=now), now=now)
    return from_microseconds(closed_at)


def insert_image(connection: sqlite3.Connection, image: StoredImage) -> None:
    """Insert a new image."""
    connection.execute(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            image.image_id,
            image.user_id,
            image.project_id,
            image.object_key,
            image.image_url,
            image.content_type,
            image.size_bytes,
            image.width,
            image.height,
            microseconds(image.created_at),
            None if image.expires_at is None else microseconds(image.expires_at),
        ),
    )


def insert_task(connection: sqlite3.Connection, task: Task, *, idempotency_key: str | None, fingerprint: str) -> None:
    """Insert a new task."""
    connection.execute(
        """
        INSERT INTO tasks (task_id, user_id, project_id, image_id, source_image_url, prompts, status,
                           idempotency_key, fingerprint, created_at, updated_at, deadline, visual, request_id, keep_s)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            task.task_id,
            task.user_id,
            task.project_id,
            task.image_id,
            task.source_image_url,
            json.dumps(task.prompts),
            task.status,
            idempotency_key,
            fingerprint,
            microseconds(task.created_at),
            microseconds(task.updated_at),
            microseconds(task.deadline),
            None if task.visual is None else json.dumps(task.visual),
            task.request_id,
            task.keep_s,
        ),
    )


def save_move(connection: sqlite3.Connection, before: Task, after: Task, *, now: datetime) -> Task:
    """Write what a transition of the state machine changed: the task, its lease, and a refund if there is one."""
    if after.status != before.status:
        connection.execute(
            """
            UPDATE tasks SET status = ?, updated_at = ?, mask_image_url = ?, labels = ?, metadata = ?,
                             error_code = ?, error_message = ?, expires_at = ?
            WHERE task_id = ?
            """,
            (
                after.status,
                microseconds(after.updated_at),
                after.mask_image_url,
                json.dumps(after.labels),
                json.dumps(dict(after.metadata)),
                after.error_code,
                after.error_message,
                None if after.expires_at is None else microseconds(after.expires_at),
                after.task_id,
            ),
        )
        connection.executemany(
            "INSERT INTO task_objects (object_key, task_id) VALUES (?, ?)",
            [(key, after.task_id) for key in after.object_keys],
        )
    if after.ended:
        connection.execute("DELETE FROM leases WHERE task_id = ?", (after.task_id,))
    elif after.attempts != before.attempts and after.attempts.expires_at is not None:
        attempts = after.attempts
        connection.execute(
            "INSERT OR REPLACE INTO leases (task_id, attempt, released, worker, expires_at) VALUES (?, ?, ?, ?, ?)",
            (
                after.task_id,
                attempts.number,
                attempts.released,
                attempts.worker,
                microseconds(after.attempts.expires_at),
            ),
        )
    refund = state_machine.refund(before, after)
    if refund:
        book(connection, after.user_id, refund, "refund", task_id=after.task_id, now=now)
    return after


def _task(row: Sequence[Any]) -> Task:
    claimed = row[15] is not None
    return Task(
        task_id=row[0],
        user_id=row[1],
        project_id=row[2],
        image_id=row[3],
        source_image_url=row[4],
        prompts=tuple(from_json(row[5])),
        status=TaskStatus(row[6]),
        mask_image_url=row[7],
        labels=tuple(from_json(row[8])),
        metadata=from_json(row[9]),
        error_code=row[10],
        error_message=row[11],
        created_at=from_microseconds(row[12]),
        updated_at=from_microseconds(row[13]),
        deadline=from_microseconds(row[14]),
        attempts=Attempts(number=row[15], released=row[16], worker=row[17], expires_at=from_microseconds(row[18]))
        if claimed
        else Attempts(),
        object_keys=tuple(sorted(from_json(row[19]))),
        visual=None if row[20] is None else from_json(row[20]),
        request_id=row[21],
        keep_s=row[22],
    )

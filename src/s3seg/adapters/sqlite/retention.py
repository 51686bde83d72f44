"""The columns of what ends, and the removal of what has ended and of what deleted accounts have."""

from __future__ import annotations

import sqlite3

from s3seg.tasks.limits import Tier
from s3seg.tasks.retention import Collection

STATEMENTS = (
    "ALTER TABLE tasks ADD COLUMN keep_s INTEGER",
    "ALTER TABLE tasks ADD COLUMN expires_at INTEGER",  # set when the task ends
    "ALTER TABLE images ADD COLUMN expires_at INTEGER",
    "CREATE INDEX tasks_expiry ON tasks (expires_at, user_id) WHERE expires_at IS NOT NULL",
    "CREATE INDEX images_expiry ON images (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX images_user ON images (user_id, created_at, image_id)",
    "ALTER TABLE accounts ADD COLUMN closed_at INTEGER",
    "ALTER TABLE accounts ADD COLUMN emptied_at INTEGER",  # when the last stored object of a closed account was deleted
    "CREATE INDEX accounts_closed ON accounts (closed_at) WHERE closed_at IS NOT NULL AND emptied_at IS NULL",
)
"""The SQL that adds the columns."""

_CLOSED = "SELECT user_id FROM accounts WHERE closed_at IS NOT NULL AND emptied_at IS NULL"
_TASKS = f"""
    SELECT task_id FROM (
        SELECT task_id FROM tasks WHERE expires_at <= :now
        UNION
        SELECT t.task_id FROM tasks t JOIN ({_CLOSED}) c ON c.user_id = t.user_id)
    LIMIT :limit
"""  # noqa: S608  (constants only)
_IMAGES = f"""
    SELECT image_id FROM (
        SELECT image_id FROM images WHERE expires_at <= :now
        UNION
        SELECT i.image_id FROM images i JOIN ({_CLOSED}) c ON c.user_id = i.user_id) ended
    WHERE NOT EXISTS (
        SELECT 1 FROM tasks t WHERE t.image_id = ended.image_id AND t.status IN ('pending', 'processing'))
    LIMIT :limit
"""  # noqa: S608  (constants only)
_EMPTY = f"""
    SELECT c.user_id FROM ({_CLOSED}) c
    WHERE NOT EXISTS (SELECT 1 FROM tasks t WHERE t.user_id = c.user_id)
      AND NOT EXISTS (SELECT 1 FROM images i WHERE i.user_id = c.user_id)
"""  # noqa: S608  (constants only)
_GROUPS = f"""
    SELECT user_id FROM projects WHERE user_id IN ({_EMPTY})
    UNION
    SELECT user_id FROM concepts WHERE user_id IN ({_EMPTY})
"""  # noqa: S608  (constants only)


def mark_closed(db: sqlite3.Connection, user_id: str, *, now: int) -> int:
    """Mark an account as deleted, create it if it does not exist, and remove its webhooks; return when it was marked.

    Cancel its tasks afterwards, in the same transaction: no webhook is told of them any more.
    """
    db.execute(
        "INSERT INTO accounts (user_id, tier, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (user_id, Tier.FREE, now),
    )
    db.execute("DELETE FROM webhooks WHERE user_id = ?", (user_id,))
    db.execute("DELETE FROM recent_actions WHERE user_id = ?", (user_id,))
    db.execute("UPDATE accounts SET closed_at = ? WHERE user_id = ? AND closed_at IS NULL", (now, user_id))
    return closed_at(db, user_id) or now


def closed_at(db: sqlite3.Connection, user_id: str) -> int | None:
    """Return when an account was marked as deleted, or None."""
    row = db.execute("SELECT closed_at FROM accounts WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else row[0]


def anything_to_collect(db: sqlite3.Connection, *, now: int) -> bool:
    """Return whether `collect` would remove something."""
    values = {"now": now, "limit": 1}
    return any(db.execute(query, values).fetchone() is not None for query in (_TASKS, _IMAGES, _GROUPS))


def collect(db: sqlite3.Connection, *, now: int, limit: int) -> Collection:
    """Remove up to ``limit`` images and tasks whose time is over or whose account was deleted."""
    values = {"now": now, "limit": limit}
    keys: list[str] = []
    tasks = db.execute(_TASKS, values).fetchall()
    for task in tasks:
        keys += [row[0] for row in db.execute("SELECT object_key FROM task_objects WHERE task_id = ?", task)]
        db.execute("DELETE FROM tasks WHERE task_id = ?", task)
    images = db.execute(_IMAGES, values).fetchall()
    for image in images:
        keys += db.execute("SELECT object_key FROM images WHERE image_id = ?", image).fetchone()
        db.execute("DELETE FROM images WHERE image_id = ?", image)
    for user in db.execute(_GROUPS).fetchall():  # when no row refers to them any more
        db.execute("DELETE FROM projects WHERE user_id = ?", user)
        db.execute("DELETE FROM concepts WHERE user_id = ?", user)
    return Collection(images=len(images), results=len(tasks), object_keys=tuple(keys))


def closed_accounts(db: sqlite3.Connection, *, limit: int) -> list[str]:
    """Return users of deleted accounts without rows, who may have stored objects."""
    query = f"{_EMPTY} AND c.user_id NOT IN ({_GROUPS}) ORDER BY c.user_id LIMIT ?"
    return [row[0] for row in db.execute(query, (limit,))]

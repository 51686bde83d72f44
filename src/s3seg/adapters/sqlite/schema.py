"""The tables, with constraints and triggers that reject invalid changes even if the code has a bug.

Times are whole microseconds since 1970. Lists (prompts, labels) and metadata are JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from s3seg.adapters.sqlite import counts, retention, webhook_tables
from s3seg.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one kind of file.

    Attributes:
        name: What messages call the file.
        versions: The statements that lead from each version to the next, beginning with an empty file. The number of
            entries is the version, stored as ``PRAGMA user_version``.
        synced: Whether a write is on disk before it returns. If not, it survives a crash of the process, but not a
            power failure.
    """

    name: str
    versions: Sequence[Sequence[str]]
    synced: bool = True


_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"
_VERSION_1 = (
    _META,
    # credits are always the sum of the ledger: they change only through new rows of it
    """
    CREATE TABLE accounts (
        user_id TEXT PRIMARY KEY,
        tier TEXT NOT NULL CHECK (tier IN ('free', 'pro', 'enterprise')),
        credits INTEGER NOT NULL DEFAULT 0 CHECK (credits >= 0),
        tasks INTEGER NOT NULL DEFAULT 0,  -- how many the user has, so that totals cost nothing
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE ledger (
        id INTEGER PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id),
        delta INTEGER NOT NULL CHECK (delta <> 0),
        reason TEXT NOT NULL CHECK (reason IN ('grant', 'purchase', 'segment', 'refund', 'adjust')),
        task_id TEXT,  -- kept when the task is deleted
        created_at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX ledger_user ON ledger (user_id, id)",
    "CREATE INDEX ledger_debits ON ledger (user_id, created_at) WHERE reason = 'segment'",
    "CREATE UNIQUE INDEX ledger_once ON ledger (task_id, reason) WHERE reason IN ('segment', 'refund')",
    """
    CREATE TRIGGER ledger_moves_credits AFTER INSERT ON ledger BEGIN
        UPDATE accounts SET credits = credits + new.delta WHERE user_id = new.user_id;
    END
    """,
    "CREATE TRIGGER ledger_keeps BEFORE DELETE ON ledger BEGIN SELECT raise(ABORT, 'ledger rows stay'); END",
    "CREATE TRIGGER ledger_stands BEFORE UPDATE ON ledger BEGIN SELECT raise(ABORT, 'ledger rows stay'); END",
    """
    CREATE TABLE projects (
        project_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id),
        name TEXT NOT NULL,
        tasks INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX projects_user ON projects (user_id, created_at, project_id)",
    """
    CREATE TABLE images (
        image_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id),
        project_id TEXT REFERENCES projects (project_id) ON DELETE SET NULL,
        object_key TEXT NOT NULL UNIQUE,
        image_url TEXT NOT NULL UNIQUE,
        content_type TEXT NOT NULL,
        size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
        width INTEGER NOT NULL CHECK (width > 0),
        height INTEGER NOT NULL CHECK (height > 0),
        created_at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX images_project ON images (project_id) WHERE project_id IS NOT NULL",
    """
    CREATE TABLE tasks (
        task_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id),
        project_id TEXT REFERENCES projects (project_id) ON DELETE SET NULL,
        image_id TEXT REFERENCES images (image_id) ON DELETE SET NULL,
        source_image_url TEXT NOT NULL,
        prompts TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'done', 'error')),
        mask_image_url TEXT NOT NULL DEFAULT '',
        labels TEXT NOT NULL DEFAULT '[]',
        metadata TEXT NOT NULL DEFAULT '{}',
        error_code TEXT,
        error_message TEXT,
        idempotency_key TEXT,
        fingerprint TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        deadline INTEGER NOT NULL,
        CHECK (status <> 'done' OR mask_image_url <> ''),
        CHECK ((status = 'error') = (error_message IS NOT NULL))
    ) STRICT
    """,
    "CREATE INDEX tasks_user ON tasks (user_id, created_at, task_id)",
    """
    CREATE INDEX tasks_project ON tasks (project_id, created_at, task_id) WHERE project_id IS NOT NULL
    """,
    "CREATE INDEX tasks_image ON tasks (image_id) WHERE image_id IS NOT NULL",
    """
    CREATE UNIQUE INDEX tasks_idempotency ON tasks (user_id, idempotency_key)
        WHERE idempotency_key IS NOT NULL
    """,
    "CREATE INDEX tasks_pending ON tasks (created_at) WHERE status = 'pending'",
    "CREATE INDEX tasks_live ON tasks (deadline) WHERE status IN ('pending', 'processing')",
    """
    CREATE TRIGGER tasks_move_forward BEFORE UPDATE OF status ON tasks
    WHEN new.status <> old.status AND NOT (
        (old.status = 'pending' AND new.status IN ('processing', 'error'))
        OR (old.status = 'processing' AND new.status IN ('done', 'error')))
    BEGIN SELECT raise(ABORT, 'illegal transition'); END
    """,
    """
    CREATE TRIGGER tasks_end_once
    BEFORE UPDATE OF mask_image_url, labels, metadata, error_code, error_message ON tasks
    WHEN old.status IN ('done', 'error')
    BEGIN SELECT raise(ABORT, 'the task has ended'); END
    """,
    """
    CREATE TRIGGER tasks_counted AFTER INSERT ON tasks BEGIN
        UPDATE accounts SET tasks = tasks + 1 WHERE user_id = new.user_id;
        UPDATE projects SET tasks = tasks + 1 WHERE project_id = new.project_id;
    END
    """,
    """
    CREATE TRIGGER tasks_uncounted AFTER DELETE ON tasks BEGIN
        UPDATE accounts SET tasks = tasks - 1 WHERE user_id = old.user_id;
        UPDATE projects SET tasks = tasks - 1 WHERE project_id = old.project_id;
    END
    """,
    # a task has a lease from its first claim until it ends
    """
    CREATE TABLE leases (
        task_id TEXT PRIMARY KEY REFERENCES tasks (task_id) ON DELETE CASCADE,
        attempt INTEGER NOT NULL,
        released INTEGER NOT NULL,
        worker TEXT,
        expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX leases_expiry ON leases (expires_at)",
    """
    CREATE TABLE task_objects (
        object_key TEXT PRIMARY KEY,
        task_id TEXT NOT NULL REFERENCES tasks (task_id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX task_objects_task ON task_objects (task_id)",
)


_VERSION_3 = ("CREATE INDEX tasks_done ON tasks (updated_at) WHERE status = 'done'",)
_VERSION_4 = (
    "ALTER TABLE tasks ADD COLUMN visual TEXT",
    """
    CREATE TABLE concepts (
        concept_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id),
        name TEXT NOT NULL,
        definition TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX concepts_user ON concepts (user_id, created_at, concept_id)",
)

_VERSION_5 = webhook_tables.STATEMENTS
_VERSION_6 = ("ALTER TABLE tasks ADD COLUMN request_id TEXT",)

_VERSION_7 = retention.STATEMENTS

TASKS = Schema(
    "the task database",
    (_VERSION_1, counts.STATEMENTS, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7),
)
"""Tasks, accounts, images and projects, and recent submits.

Version 2 added the recent submits, version 3 an index to count tasks that were done lately, version 4 what tasks ask
for beside words, and concepts, version 5 webhooks, version 6 the ids of requests, and version 7 the times at which
images and results end, and deleted accounts.
"""

COUNTS = Schema("the database of rate limits", ((_META, *counts.STATEMENTS),), synced=False)
"""Recent actions of users, for the rate limiter. After a power failure the window has passed anyway."""


def migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    """Create or upgrade the tables; safe to run from several processes at once.

    Raises:
        ConfigurationError: If the file was written by a newer version of s3seg.
    """
    found, newest = _version(connection), len(schema.versions)
    if found == newest:
        return
    if found > newest:
        raise ConfigurationError(
            f"{schema.name} has schema version {found}, but this version of s3seg supports only {newest}: "
            "upgrade s3seg, or set data_dir to another folder"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in schema.versions[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]

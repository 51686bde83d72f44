"""The tables of webhooks in SQLite, and the trigger that writes a delivery in the transaction that ends a task."""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE webhooks (
        webhook_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id),
        url TEXT NOT NULL,
        secret TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX webhooks_user ON webhooks (user_id, created_at)",
    """
    CREATE TABLE deliveries (
        delivery_id TEXT PRIMARY KEY,
        webhook_id TEXT NOT NULL REFERENCES webhooks (webhook_id) ON DELETE CASCADE,
        task_id TEXT NOT NULL,  -- kept when the task is deleted
        payload TEXT NOT NULL,
        status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt_at INTEGER,  -- null once it has ended
        last_error TEXT,
        created_at INTEGER NOT NULL,
        CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
    ) STRICT
    """,
    "CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL",
    "CREATE INDEX deliveries_webhook ON deliveries (webhook_id, created_at)",
    "CREATE INDEX deliveries_ended ON deliveries (created_at) WHERE next_attempt_at IS NULL",
    """
    CREATE TRIGGER task_ends_told AFTER UPDATE OF status ON tasks
    WHEN new.status IN ('done', 'error') AND old.status NOT IN ('done', 'error')
    BEGIN
        INSERT INTO deliveries (delivery_id, webhook_id, task_id, payload, next_attempt_at, created_at)
        SELECT 'msg_' || lower(hex(randomblob(16))), w.webhook_id, new.task_id,
            json_object(
                'type', 'task.' || new.status,
                'timestamp', strftime('%Y-%m-%dT%H:%M:%fZ', new.updated_at / 1000000.0, 'unixepoch'),
                'data', json_patch(
                    json_object('task_id', new.task_id, 'status', new.status),
                    json_object(
                        'result_id', CASE new.status WHEN 'done' THEN new.task_id END,
                        'error_message', new.error_message))),
            new.updated_at, new.updated_at
        FROM webhooks w WHERE w.user_id = new.user_id;
    END
    """,
)
"""The SQL that creates the tables. ``json_patch`` leaves out the fields that are null."""

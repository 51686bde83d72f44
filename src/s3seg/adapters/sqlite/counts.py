"""Counts recent actions for the rate limits: one row for each user and action, with the times of the actions.

Times are of the machine's monotonic clock, which all its processes share and nobody can set. When the machine starts
again, the clock does too; `s3seg.tasks.rate_limit.take` says what happens to times that are then in the future.
"""

from __future__ import annotations

import sqlite3
from array import array

from s3seg.tasks.limits import RATE_WINDOW_S, UNLIMITED, Action
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.rate_limit import take as take_one

STATEMENTS = (
    """
    CREATE TABLE recent_actions (
        user_id TEXT NOT NULL,
        action TEXT NOT NULL,
        times BLOB NOT NULL,  -- doubles, newest first
        newest REAL NOT NULL,
        PRIMARY KEY (user_id, action)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX recent_actions_newest ON recent_actions (newest)",
)
"""The SQL that creates the table."""


def take(db: sqlite3.Connection, user_id: str, action: Action, *, limit: int, now: float) -> RateDecision:
    """Decide whether a user may do one more action, and count it if so; rows of inactive users are removed."""
    if limit >= UNLIMITED:
        return take_one(action, (), limit=limit, now=now)[0]
    db.execute("UPDATE recent_actions SET newest = ?1 WHERE newest > ?1", (now,))
    db.execute("DELETE FROM recent_actions WHERE newest <= ?", (now - RATE_WINDOW_S,))
    row = db.execute(
        "SELECT times FROM recent_actions WHERE user_id = ? AND action = ?", (user_id, action.value)
    ).fetchone()
    earlier = array("d", b"" if row is None else row[0])
    decision, times = take_one(action, earlier, limit=limit, now=now)
    if decision.allowed:
        db.execute(
            "INSERT OR REPLACE INTO recent_actions (user_id, action, times, newest) VALUES (?, ?, ?, ?)",
            (user_id, action.value, array("d", times).tobytes(), now),
        )
    return decision

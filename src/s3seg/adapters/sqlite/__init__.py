"""Tasks, accounts and projects in an SQLite file, which several processes may share."""

from s3seg.adapters.sqlite.database import Database
from s3seg.adapters.sqlite.limiter import SqliteRateLimiter
from s3seg.adapters.sqlite.policy import Policy
from s3seg.adapters.sqlite.schema import COUNTS
from s3seg.adapters.sqlite.tasks import SqliteTaskStore
from s3seg.adapters.sqlite.work import SqliteAccounts, SqliteTaskQueue

__all__ = ["COUNTS", "Database", "Policy", "SqliteAccounts", "SqliteRateLimiter", "SqliteTaskQueue", "SqliteTaskStore"]

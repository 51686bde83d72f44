"""Adapters that keep everything in memory: for tests, notebooks, and a single small server.

They pass the same test suites as the persistent adapters.
"""

from s3seg.adapters.memory.limiter import MemoryRateLimiter
from s3seg.adapters.memory.notifier import MemoryNotifier
from s3seg.adapters.memory.objects import MemoryObjectStore
from s3seg.adapters.memory.tables import MemoryTables
from s3seg.adapters.memory.tasks import MemoryTaskStore
from s3seg.adapters.memory.work import MemoryAccounts, MemoryTaskQueue

__all__ = [
    "MemoryAccounts",
    "MemoryNotifier",
    "MemoryObjectStore",
    "MemoryRateLimiter",
    "MemoryTables",
    "MemoryTaskQueue",
    "MemoryTaskStore",
]

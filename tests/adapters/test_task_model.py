import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from s3seg.testing.task_model import TaskModel
from tests.adapters.harnesses import MemoryHarness, SqliteHarness

QUICK = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


class MemoryTaskModel(TaskModel):
    async def new_harness(self):
        return MemoryHarness()


class SqliteTaskModel(TaskModel):
    async def new_harness(self):
        self._folder = tempfile.TemporaryDirectory()
        return SqliteHarness(Path(self._folder.name) / "tasks.sqlite3")

    async def close_harness(self, harness):
        await super().close_harness(harness)
        self._folder.cleanup()


TestMemoryTaskModel = MemoryTaskModel.TestCase
TestMemoryTaskModel.settings = QUICK
TestSqliteTaskModel = SqliteTaskModel.TestCase
TestSqliteTaskModel.settings = settings(QUICK, max_examples=20)


class LongMemoryTaskModel(MemoryTaskModel):
    pass


class LongSqliteTaskModel(SqliteTaskModel):
    pass


TestLongMemoryTaskModel = pytest.mark.slow(LongMemoryTaskModel.TestCase)
TestLongMemoryTaskModel.settings = settings(QUICK, max_examples=1000, stateful_step_count=60)
TestLongSqliteTaskModel = pytest.mark.slow(LongSqliteTaskModel.TestCase)
TestLongSqliteTaskModel.settings = settings(QUICK, max_examples=200, stateful_step_count=60)

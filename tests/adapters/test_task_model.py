import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from s3seg.testing.task_model import TaskModel
from tests.adapters.worlds import MemoryWorld, SqliteWorld

QUICK = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


class MemoryTaskModel(TaskModel):
    async def new_world(self):
        return MemoryWorld()


class SqliteTaskModel(TaskModel):
    async def new_world(self):
        self._folder = tempfile.TemporaryDirectory()
        return SqliteWorld(Path(self._folder.name) / "tasks.sqlite3")

    async def close_world(self, world):
        await super().close_world(world)
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

import pytest

from s3seg.testing import AccountsSuite, TaskQueueSuite, TaskStoreSuite
from tests.adapters.worlds import SqliteWorld


class _OnSqlite:
    @pytest.fixture
    async def world(self, tmp_path):
        world = SqliteWorld(tmp_path / "tasks.sqlite3")
        yield world
        await world.aclose()


class TestSqliteTaskStore(_OnSqlite, TaskStoreSuite):
    pass


class TestSqliteTaskQueue(_OnSqlite, TaskQueueSuite):
    pass


class TestSqliteAccounts(_OnSqlite, AccountsSuite):
    pass

import pytest

from s3seg.testing import AccountsSuite, TaskQueueSuite, TaskStoreSuite
from tests.adapters.harnesses import SqliteHarness


class _OnSqlite:
    @pytest.fixture
    async def harness(self, tmp_path):
        harness = SqliteHarness(tmp_path / "tasks.sqlite3")
        yield harness
        await harness.aclose()


class TestSqliteTaskStore(_OnSqlite, TaskStoreSuite):
    pass


class TestSqliteTaskQueue(_OnSqlite, TaskQueueSuite):
    pass


class TestSqliteAccounts(_OnSqlite, AccountsSuite):
    pass

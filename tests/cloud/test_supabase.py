"""The Supabase adapters pass the suites that the embedded ones pass, on PostgreSQL and PostgREST."""

from s3seg.testing import AccountsSuite, TaskQueueSuite, TaskStoreSuite

from .worlds import OnSupabase


class TestSupabaseTaskStore(OnSupabase, TaskStoreSuite):
    pass


class TestSupabaseTaskQueue(OnSupabase, TaskQueueSuite):
    pass


class TestSupabaseAccounts(OnSupabase, AccountsSuite):
    pass

"""Test suites for adapters: one for each port, for the adapters of s3seg and those of third parties alike.

To test an adapter, subclass the suite of its port in a test module, override the fixtures that the suite names in its
docstring, and run pytest::

    import pytest

    from s3seg.testing import ObjectStoreSuite

    class TestMyStore(ObjectStoreSuite):
        @pytest.fixture
        def store(self):
            return MyStore(...)

======================  ==============================================
port                    suite
======================  ==============================================
`ObjectStore`           `ObjectStoreSuite`
`TaskStore`             `TaskStoreSuite`, with a `TaskHarness`
`TaskQueue`             `TaskQueueSuite`, with a `TaskHarness`
`Accounts`              `AccountsSuite`, with a `TaskHarness`
`Authenticator`         `AuthenticatorSuite`
`RateLimiter`           `RateLimiterSuite`
`WorkerNotifier`        `WorkerNotifierSuite`
`TaskStore`, and        `RetentionSuite`, with a `TaskHarness` that has `set_retention`
`Accounts`
`Webhooks`, and         `WebhookSuite`, with a `TaskHarness` that has them
`WebhookOutbox`
======================  ==============================================

Adapters of `TaskStore`, `TaskQueue` and `Accounts` should also run the stateful model in `s3seg.testing.task_model`,
which needs hypothesis. The suites need pytest and the pytest plugin that comes with anyio.
"""

from s3seg.testing.access import AuthenticatorSuite, RateLimiterSuite, WorkerNotifierSuite
from s3seg.testing.accounts import AccountsSuite
from s3seg.testing.harness import TaskHarness
from s3seg.testing.object_store import ObjectStoreSuite
from s3seg.testing.retention import RetentionSuite
from s3seg.testing.task_queue import TaskQueueSuite
from s3seg.testing.task_store import TaskStoreSuite
from s3seg.testing.webhooks import WebhookSuite

__all__ = [
    "AccountsSuite",
    "AuthenticatorSuite",
    "ObjectStoreSuite",
    "RateLimiterSuite",
    "RetentionSuite",
    "TaskHarness",
    "TaskQueueSuite",
    "TaskStoreSuite",
    "WebhookSuite",
    "WorkerNotifierSuite",
]

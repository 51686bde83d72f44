"""Behaviour suites: what every adapter of a port must do, ours and third parties' alike.

Subclass the suite of your port in a test module, give it the fixture that it asks for, and run pytest::

    from s3seg.testing import ObjectStoreSuite

    class TestMyStore(ObjectStoreSuite):
        @pytest.fixture
        def store(self):
            return MyStore(...)

They need pytest and anyio's pytest plugin (which comes with anyio); the stateful model needs hypothesis and
is imported from `s3seg.testing.task_model`.
"""

from s3seg.testing.access import AuthenticatorSuite, InferenceSuite, RateLimiterSuite
from s3seg.testing.accounts import AccountsSuite
from s3seg.testing.object_store import ObjectStoreSuite
from s3seg.testing.task_queue import TaskQueueSuite
from s3seg.testing.task_store import TaskStoreSuite
from s3seg.testing.world import TaskWorld

__all__ = [
    "AccountsSuite",
    "AuthenticatorSuite",
    "InferenceSuite",
    "ObjectStoreSuite",
    "RateLimiterSuite",
    "TaskQueueSuite",
    "TaskStoreSuite",
    "TaskWorld",
]

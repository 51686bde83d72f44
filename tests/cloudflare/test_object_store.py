"""The object store on the R2 binding, inside workerd, by the suite that every object store must pass."""

import pytest

from s3seg.testing import ObjectStoreSuite
from tests.cloudflare.remote_objects import RemoteObjectStore


class TestR2Binding(ObjectStoreSuite):
    @pytest.fixture
    async def store(self, worker):
        store = RemoteObjectStore(worker.url)
        async for info in store.list(""):
            await store.delete(info.key)
        return store

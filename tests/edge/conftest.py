import pytest

from .running import running


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path) as service:
        yield service


@pytest.fixture
async def ann(service):
    return await service.user("ann")


@pytest.fixture
async def bob(service):
    return await service.user("bob")

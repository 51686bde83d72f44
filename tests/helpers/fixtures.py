"""Fixtures that several folders of tests use; `tests/conftest.py` makes them known."""

from __future__ import annotations

import pytest

from tests.helpers.gpu_house import House
from tests.helpers.running_edge import running


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def house():
    """The inference side in this process, on adapters in memory."""
    house = House()
    yield house
    house.cpu.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
async def service(tmp_path):
    """An edge that listens on a port of its own."""
    async with running(tmp_path) as service:
        yield service


@pytest.fixture
async def ann(service):
    return await service.user("ann")


@pytest.fixture
async def bob(service):
    return await service.user("bob")

from __future__ import annotations

import pytest

from .house import House


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def house():
    house = House()
    yield house
    house.cpu.shutdown(wait=False, cancel_futures=True)

"""Fixtures that several folders of tests use; `tests/conftest.py` makes them known."""

from __future__ import annotations

import pytest

from tests.helpers.inference_system import InferenceSystem
from tests.helpers.running_edge import running


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def own_hub_cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and none of the variables that say where to look, or as whom."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "S3SEG_CHECKPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def system():
    """The inference side in this process, on adapters in memory."""
    system = InferenceSystem()
    yield system
    system.cpu.shutdown(wait=False, cancel_futures=True)


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

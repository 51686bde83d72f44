"""For all tests: nothing is judged by the clock, and no checkpoint of the machine is taken by accident."""

from __future__ import annotations

import functools
import os

import httpx
import hypothesis
import pytest
import typer.main

from tests.helpers.fixtures import ann, anyio_backend, bob, own_hub_cache, service, system  # noqa: F401

QUICK = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=50)
hypothesis.settings.register_profile("quick", QUICK)
hypothesis.settings.register_profile("thorough", QUICK, max_examples=500)  # of `make test-slow`
hypothesis.settings.load_profile("quick")


os.environ.setdefault("S3SEG_DTYPE", "float32")  # results do not depend on what the processor is fast at


@pytest.fixture(scope="session", autouse=True)
def _certificates_read_once():
    """Share one TLS context among all clients: reading the list of certificates takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", functools.cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once():
    """Build the tree of commands once: for each run of a command, it takes longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("S3SEG_CHECKPOINT", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

from __future__ import annotations

import pytest

from s3seg.client.signin.sessions import SessionStore
from tests.helpers.fake_supabase import fake_supabase


@pytest.fixture
def supabase():
    with fake_supabase() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch):
    """The keyring of this machine is never used."""
    monkeypatch.setattr("s3seg.client.signin.sessions.system_keyring", lambda: None)


@pytest.fixture
def store(tmp_path):
    return SessionStore(tmp_path / "sign-ins")

"""An edge whose users sign in to a Supabase project."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3seg.app import edge_app
from s3seg.app.settings import Settings
from s3seg.client.signin.discovery import Project
from s3seg.client.signin.sessions import SessionStore, StoredSession, service_of
from s3seg.client.signin.supabase import SupabaseAuth
from tests.helpers.fake_supabase import PUBLISHABLE_KEY, FakeSupabase
from tests.helpers.serving import served


@contextlib.contextmanager
def edge_of(supabase: FakeSupabase, folder: Path, **settings: Any) -> Iterator[str]:
    """Serve an edge on loopback, and yield its URL."""
    chosen = {
        "authenticator": "supabase",
        "supabase_url": supabase.url,
        "supabase_publishable_key": PUBLISHABLE_KEY,
        "rate_limits": "off",
        "decode_processes": 0,
        **settings,
    }
    app = edge_app(Settings(_env_file=None, data_dir=folder, **chosen))  # type: ignore[call-arg]
    with served(app) as url:
        yield service_of(url)


def signed_in_at(
    supabase: FakeSupabase, service: str, store: SessionStore, *, clock: Any = None, realtime: bool = False
) -> StoredSession:
    """Sign a new user up and in, and keep the session."""
    project = Project(url=supabase.url, key=PUBLISHABLE_KEY, realtime=realtime)
    user = supabase.auth.sign_up(f"user{len(supabase.auth.users)}@example.com")
    more = {} if clock is None else {"clock": clock}
    return SupabaseAuth(service, project, store.write, **more).with_password(user.email, user.password)


@dataclass
class MemoryKeyring:
    """A keyring of the system.

    Attributes:
        locked: Raise from every method, as a locked one does.
    """

    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    locked: bool = False

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        del self.kept[service, username]

    def _check(self) -> None:
        if self.locked:
            raise RuntimeError("the keyring is locked")


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


class Clock:
    """A clock that tests move."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

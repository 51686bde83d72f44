"""The real parts, started once per test process; and installations of ours on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.platform == "linux":
    from s3seg.adapters.supabase.migrations import DatabaseConfig, migrate
    from s3seg.testing.harness import PUBLIC_BASE
    from tests.cloud.parts.downloads import MissingPartError, postgres_program, postgrest_binary, weed
    from tests.cloud.parts.gateway import Gateway, gateway
    from tests.cloud.parts.postgres import Postgres, postgres
    from tests.cloud.parts.postgrest import Postgrest, postgrest
    from tests.cloud.parts.seaweed import Bucket, seaweed
    from tests.cloud.parts.tokens import TokenIssuer
else:  # there are no such parts for other systems
    collect_ignore_glob = ["test_*.py"]

SHIM = Path(__file__).parent / "parts" / "shim.sql"
OLD_DEFAULT_GRANTS = Path(__file__).parent / "parts" / "old_default_grants.sql"


@dataclass(frozen=True)
class Project:
    """What stands for a Supabase project: the database, PostgREST on it, the gateway before it, and Auth's keys."""

    database: Postgres
    postgrest: Postgrest
    gateway: Gateway
    issuer: TokenIssuer

    def sign_up(self, user_id: str) -> None:
        """What Supabase Auth does."""
        self.database.execute("insert into auth.users (id) values (%s)", (user_id,))

    def empty(self) -> None:
        """No users, no rows, and the clock as it is."""
        self.database.execute("truncate auth.users cascade; update private.test_clock set ahead = '0'")


@contextmanager
def supabase(
    folder: Path, server: Postgres, *, old_default_grants: bool = True, public_base: str = PUBLIC_BASE
) -> Iterator[Project]:
    """A project in a database of its own."""
    database = server.new_database()
    database.execute(SHIM.read_text())
    if old_default_grants:
        database.execute(OLD_DEFAULT_GRANTS.read_text())
    migrate(database.url, DatabaseConfig(public_base_url=public_base))
    database.execute(
        """
        create table private.test_clock (ahead interval not null);
        insert into private.test_clock values ('0');
        create or replace function private.now() returns timestamptz language sql volatile security definer
          set search_path = '' as $$ select clock_timestamp() + ahead from private.test_clock $$;
        """
    )
    issuer = TokenIssuer()
    home = folder / database.database
    home.mkdir()
    with postgrest(home, database, issuer) as rest, gateway(rest.url, issuer) as front:
        yield Project(database, rest, front, issuer)


@pytest.fixture(scope="session", autouse=True)
def parts() -> None:
    """Get what is not on this machine. In CI a part that cannot be had fails; elsewhere it may be skipped."""
    try:
        postgrest_binary()
        postgres_program("initdb")
        weed()
    except MissingPartError as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real parts: {err}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, parts: None) -> Path:
    """Where the parts keep their files."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="session")
def database_server(folder: Path) -> Iterator[Postgres]:
    """An empty PostgreSQL."""
    home = folder / "postgres"
    home.mkdir()
    with postgres(home) as server:
        yield server


@pytest.fixture(scope="session", params=["old default grants", pytest.param("no grants", marks=pytest.mark.slow)])
def project(request: pytest.FixtureRequest, folder: Path, database_server: Postgres) -> Iterator[Project]:
    """A project with our migrations, whose clock tests can move; as projects were once set up, and as they are now."""
    with supabase(folder, database_server, old_default_grants=request.param == "old default grants") as made:
        yield made


@pytest.fixture(scope="session")
def s3(folder: Path) -> Iterator[Bucket]:
    """An S3 server."""
    home = folder / "seaweed"
    home.mkdir()
    with seaweed(home) as bucket:
        yield bucket

"""Real servers for the cloud adapters, started once per test process, and Supabase projects on them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

if sys.platform == "linux":
    from s3seg.adapters.supabase.migrations import DatabaseConfig, migrate
    from s3seg.testing.harness import PUBLIC_BASE
    from tests.cloud.direct_client import Client
    from tests.cloud.parts.downloads import MissingPartError, postgres_program, postgrest_binary, weed
    from tests.cloud.parts.gateway import Gateway, gateway
    from tests.cloud.parts.postgres import Postgres, postgres
    from tests.cloud.parts.postgrest import Postgrest, postgrest
    from tests.cloud.parts.seaweed import Bucket, seaweed
    from tests.cloud.parts.tokens import TokenIssuer
    from tests.helpers.fake_supabase import FakeAuth, FakeRealtime
else:  # the servers are not available for other systems
    collect_ignore_glob = ["test_*.py"]

SHIM = Path(__file__).parent / "parts" / "shim.sql"
# As "truncate auth.users cascade", which makes the files of all these tables and their indexes anew
EMPTY = """
do $$ declare of_users regclass; begin
  set local session_replication_role = replica;
  for of_users in
    with recursive tables (id) as (
      select 'auth.users'::regclass::oid
      union select conrelid from pg_constraint join tables on confrelid = id where contype = 'f'
    ) select id from tables
  loop execute 'delete from ' || of_users; end loop;
end $$;
update private.test_clock set ahead = '0'
"""
OLD_DEFAULT_GRANTS = Path(__file__).parent / "parts" / "old_default_grants.sql"


@dataclass(frozen=True)
class Project:
    """A Supabase project: database, PostgREST, gateway, the issuer of tokens, and stand-ins for Auth and Realtime."""

    database: Postgres
    postgrest: Postgrest
    gateway: Gateway
    issuer: TokenIssuer
    auth: FakeAuth
    realtime: FakeRealtime

    def sign_up(self, user_id: str) -> None:
        """Create a user, as Supabase Auth does."""
        self.database.execute("insert into auth.users (id) values (%s)", (user_id,))

    def empty(self) -> None:
        """Remove all users and rows, and reset the clock."""
        self.database.execute(EMPTY)


@contextmanager
def supabase(
    folder: Path,
    server: Postgres,
    *,
    old_default_grants: bool = True,
    public_base: str = PUBLIC_BASE,
    issuer: TokenIssuer | None = None,
) -> Iterator[Project]:
    """Run a project in a database of its own."""
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
    issuer = issuer or TokenIssuer()
    home = folder / database.database
    home.mkdir()
    auth = FakeAuth(issuer)
    realtime = FakeRealtime(auth.claims)
    with (
        postgrest(home, database, issuer) as rest,
        gateway(rest.url, issuer, [*auth.routes(), *realtime.routes()]) as front,
    ):
        yield Project(database, rest, front, issuer, auth, realtime)


@pytest.fixture(scope="session", autouse=True)
def parts() -> None:
    """Download missing servers. If one is not available, tests fail in CI and are skipped elsewhere."""
    try:
        postgrest_binary()
        postgres_program("initdb")
        weed()
    except MissingPartError as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"a server is not available: {err}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, parts: None) -> Path:
    """The folder for the files of the servers."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="session")
def database_server(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL server."""
    home = folder / "postgres"
    home.mkdir()
    with postgres(home) as server:
        yield server


@pytest.fixture(scope="session", params=["old default grants", pytest.param("no grants", marks=pytest.mark.slow)])
def project(request: pytest.FixtureRequest, folder: Path, database_server: Postgres) -> Iterator[Project]:
    """A migrated project whose clock tests can move, with the default grants of older and of newer projects."""
    with supabase(folder, database_server, old_default_grants=request.param == "old default grants") as made:
        yield made


@pytest.fixture(scope="session")
def s3(folder: Path) -> Iterator[Bucket]:
    """An S3 server."""
    home = folder / "seaweed"
    home.mkdir()
    with seaweed(home) as bucket:
        yield bucket


@pytest.fixture(scope="module")
def http(project):
    with httpx.Client(base_url=project.postgrest.url, timeout=30) as client:
        yield client


@pytest.fixture
def with_token(http):
    """Return a function that creates a client with a token, or without one."""
    return lambda token=None: Client(http, token)


@pytest.fixture
def service(project, with_token):
    """A client with the service role, as used by workers and operators."""
    return with_token(project.issuer.role_token("service_role"))


@pytest.fixture
def sign_up(project, with_token):
    """Return a function that creates a user, and returns their id and a client with their token."""

    def make(*, credits=10, tier="enterprise", **claims):
        user_id = str(uuid.uuid4())
        project.sign_up(user_id)
        if not claims:
            project.database.execute("select public.operator_ensure(%s, %s)", (user_id, tier))
            project.database.execute("select public.operator_adjust(%s, %s)", (user_id, credits - 10))
        return user_id, with_token(project.issuer.user_token(user_id, **claims))

    return make

"""The schema's migrations: what there are, which a database has, and applying the rest.

They lie where the Supabase CLI looks (``supabase/migrations``) and are recorded where it records them, so that
``supabase db push`` and ``s3seg db migrate`` may take turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from s3seg.errors import ConfigurationError, UnavailableError
from s3seg.tasks.limits import RATE_LIMITS, Action, RateTable, Tier

if TYPE_CHECKING:
    import psycopg

_RECORDS = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key, statements text[], name text);
"""
_OLDEST = 15
# what libpq says of an address, and what there is to do; its own words may hold the address, password included
_UNREACHABLE = (
    ("password authentication failed", "user or password is wrong"),
    ("tenant or user not found", "the pooler knows no such user: it is postgres.<ref> there, in the project's region"),
    ("does not exist", "there is no such user or database"),
    ("name or service not known", "there is no such host"),
    ("could not translate host name", "there is no such host"),
    ("failed to resolve host", "there is no such host"),
    ("network is unreachable", "the direct address of a project is IPv6 only, take that of the session pooler"),
    ("connection refused", "nobody listens at that host and port"),
    ("timeout expired", "that host does not answer"),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL: ``{version}_{name}.sql``."""

    version: str
    name: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """What the database must know of the settings.

    Attributes:
        public_base_url: Public base of object addresses, from which it derives those of images.
        welcome_credits: What a new account begins with.
        deadline_s: Seconds from acceptance to a task's end.
        max_attempts: Attempts before a task ends in error.
        rates: Actions allowed in any 60 seconds; the database counts uploads, submits and new projects.
    """

    public_base_url: str
    welcome_credits: int = 10
    deadline_s: float = 900.0
    max_attempts: int = 3
    rates: RateTable = field(default_factory=lambda: RATE_LIMITS)

    def sql(self) -> str:
        """The statements that set it."""
        base = self.public_base_url.rstrip("/").replace("'", "''")
        rates = ", ".join(
            f"('{tier}', '{action}', {self.rates[tier][action]:d})"
            for tier in Tier
            for action in (Action.UPLOAD, Action.SEGMENT, Action.RESULTS)
        )
        return (  # numbers, words of ours, and one text whose quotes are doubled
            f"update private.config set public_base_url = '{base}', welcome_credits = {self.welcome_credits:d},\n"  # noqa: S608
            f"  deadline = make_interval(secs => {self.deadline_s!r}), max_attempts = {self.max_attempts:d};\n"
            f"insert into private.rate_limits (tier, action, per_minute) values {rates}\n"
            "  on conflict (tier, action) do update set per_minute = excluded.per_minute;\n"
        )


def all_migrations() -> list[Migration]:
    """Every migration of this version of s3seg, in order."""
    found = []
    for path in sorted(_folder().glob("*.sql")):
        version, _, name = path.stem.partition("_")
        found.append(Migration(version, name, path.read_text(encoding="utf-8")))
    return found


def applied(database_url: str) -> set[str]:
    """Versions that a database has.

    Raises:
        UnavailableError: If it cannot be reached.
    """
    with _connected(database_url) as connection:
        return _applied(connection)


def migrate(database_url: str, config: DatabaseConfig) -> list[Migration]:
    """Apply what a database lacks, all or nothing, and tell it the settings; what was applied.

    Raises:
        UnavailableError: If the database cannot be reached.
        ConfigurationError: If it refuses a migration.
    """
    with _connected(database_url) as connection, connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended('s3seg.migrate', 0))")
        connection.execute(_RECORDS.encode())
        have = _applied(connection)
        new = [migration for migration in all_migrations() if migration.version not in have]
        for migration in new:
            connection.execute(migration.sql.encode())
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)",
                (migration.version, [migration.sql], migration.name),
            )
        connection.execute(config.sql().encode())
    return new


def as_sql(config: DatabaseConfig) -> str:
    """All of it as one script, for the SQL editor of a project that has none of it yet."""
    migrations = all_migrations()
    parts = [migration.sql for migration in migrations]
    known = ", ".join(f"('{migration.version}', '{migration.name}')" for migration in migrations)
    record = f"insert into supabase_migrations.schema_migrations (version, name) values {known};"  # noqa: S608 (ours)
    return "\n".join(["begin;", *parts, config.sql(), _RECORDS, record, "commit;", ""])


def _folder() -> Path:
    shipped = Path(str(files("s3seg"))) / "migrations"
    # a checkout has them where the Supabase CLI looks
    return shipped if shipped.is_dir() else Path(__file__).parents[4] / "supabase" / "migrations"


def _applied(connection: psycopg.Connection) -> set[str]:
    known = connection.execute("select to_regclass('supabase_migrations.schema_migrations') is not null").fetchone()
    if known is None or not known[0]:
        return set()
    return {row[0] for row in connection.execute("select version from supabase_migrations.schema_migrations")}


@contextmanager
def _connected(database_url: str) -> Iterator[psycopg.Connection]:
    try:
        import psycopg
    except ImportError:
        raise ConfigurationError("migrating needs psycopg; install it with: pip install 's3seg[cloud]'") from None
    try:
        # a pooler in transaction mode knows no prepared statements
        connection = psycopg.connect(database_url, autocommit=True, connect_timeout=10, prepare_threshold=None)
    except psycopg.OperationalError as err:
        said = str(err).lower()
        why = next((why for words, why in _UNREACHABLE if words in said), "check host, port, user and password")
        raise UnavailableError(
            f"the database at S3SEG_DATABASE_URL cannot be reached: {why} (a hosted project's address is under "
            "Connect in its dashboard)"
        ) from None
    except psycopg.Error:
        raise ConfigurationError(
            "S3SEG_DATABASE_URL is no address of a database: it is like postgresql://user:password@host:5432/postgres, "
            "with what is special in the password percent-encoded"
        ) from None
    if connection.info.server_version < _OLDEST * 10_000:
        connection.close()
        raise ConfigurationError(f"the database is older than PostgreSQL {_OLDEST}; upgrade the project")
    try:
        with connection:
            yield connection
    except psycopg.OperationalError as err:
        raise UnavailableError(f"the connection to the database was lost ({err.sqlstate}); it is as it was") from None
    except psycopg.Error as err:
        owner = "; connect as the owner, the user postgres" if err.sqlstate == "42501" else ""
        raise ConfigurationError(
            f"the database refuses, and is as it was: {err.diag.message_primary} ({err.sqlstate}){owner}"
        ) from None

"""Lists and applies the migrations of the database schema.

The files are where the Supabase CLI expects them (``supabase/migrations``), and applied versions are recorded in the
same table as the CLI does. ``supabase db push`` and ``s3seg db migrate`` can therefore be mixed.
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
_OLDEST_POSTGRES = 15
# messages of libpq, and what to tell the user instead; the originals may contain the address with its password
_UNREACHABLE = (
    ("password authentication failed", "the user or the password is wrong"),
    (
        "tenant or user not found",
        "the pooler does not know the user; use postgres.<ref>, and the pooler of the project's region",
    ),
    ("does not exist", "there is no such user or database"),
    ("name or service not known", "there is no such host"),
    ("could not translate host name", "there is no such host"),
    ("failed to resolve host", "there is no such host"),
    ("network is unreachable", "the direct address of a project is IPv6 only; use the address of the session pooler"),
    ("connection refused", "nothing listens at this host and port"),
    ("timeout expired", "the host does not respond"),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file, named ``{version}_{name}.sql``."""

    version: str
    name: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """The settings that the database enforces.

    Attributes:
        public_base_url: Base URL of stored objects, from which the database derives the URLs of images.
        welcome_credits: Credits of a new account.
        deadline_s: Seconds after which a task that has not ended is ended in error.
        max_attempts: How many attempts a task has.
        rates: Number of actions allowed in any 60 seconds; the database limits uploads, submits and new projects.
        retention_s: Seconds after which images and results end at the latest; None for never.
    """

    public_base_url: str
    welcome_credits: int = 10
    deadline_s: float = 900.0
    max_attempts: int = 3
    rates: RateTable = field(default_factory=lambda: RATE_LIMITS)
    retention_s: int | None = None

    def sql(self) -> str:
        """Return the SQL statements that store these settings in the database."""
        base = self.public_base_url.rstrip("/").replace("'", "''")
        rates = ", ".join(
            f"('{tier}', '{action}', {self.rates[tier][action]:d})"
            for tier in Tier
            for action in (Action.UPLOAD, Action.SEGMENT, Action.RESULTS)
        )
        return (  # safe: only numbers, constants, and one text with escaped quotes
            f"update private.config set public_base_url = '{base}', welcome_credits = {self.welcome_credits:d},\n"  # noqa: S608
            f"  deadline = make_interval(secs => {self.deadline_s!r}), max_attempts = {self.max_attempts:d},\n"
            f"  retention_s = {'null' if self.retention_s is None else int(self.retention_s)};\n"
            f"insert into private.rate_limits (tier, action, per_minute) values {rates}\n"
            "  on conflict (tier, action) do update set per_minute = excluded.per_minute;\n"
        )


def all_migrations() -> list[Migration]:
    """Return all migrations of this version of s3seg, in order."""
    found = []
    for path in sorted(_folder().glob("*.sql")):
        version, _, name = path.stem.partition("_")
        found.append(Migration(version, name, path.read_text(encoding="utf-8")))
    return found


def applied(database_url: str) -> set[str]:
    """Return the versions that have been applied to a database.

    Raises:
        UnavailableError: If the database cannot be reached.
    """
    with _connected(database_url) as connection:
        return _applied(connection)


def migrate(database_url: str, config: DatabaseConfig) -> list[Migration]:
    """Apply all missing migrations and store the settings, in one transaction; return what was applied.

    Idempotent, and safe to run from several machines at once.

    Raises:
        UnavailableError: If the database cannot be reached.
        ConfigurationError: If the database rejects a migration; nothing has changed then.
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
    """Return all migrations and settings as one script, for the SQL editor of a new project."""
    migrations = all_migrations()
    parts = [migration.sql for migration in migrations]
    known = ", ".join(f"('{migration.version}', '{migration.name}')" for migration in migrations)
    record = f"insert into supabase_migrations.schema_migrations (version, name) values {known};"  # noqa: S608 (ours)
    return "\n".join(["begin;", *parts, config.sql(), _RECORDS, record, "commit;", ""])


def _folder() -> Path:
    shipped = Path(str(files("s3seg"))) / "migrations"
    # in a checkout of the repository they are where the Supabase CLI expects them
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
        # a pooler in transaction mode does not support prepared statements
        connection = psycopg.connect(database_url, autocommit=True, connect_timeout=10, prepare_threshold=None)
    except psycopg.OperationalError as err:
        said = str(err).lower()
        why = next((why for words, why in _UNREACHABLE if words in said), "check host, port, user and password")
        raise UnavailableError(
            f"cannot connect to the database at S3SEG_DATABASE_URL: {why} (for a hosted project, the address is "
            "under Connect in the dashboard)"
        ) from None
    except psycopg.Error:
        raise ConfigurationError(
            "S3SEG_DATABASE_URL is not a database URL; it must look like "
            "postgresql://user:password@host:5432/postgres, with special characters in the password percent-encoded"
        ) from None
    if connection.info.server_version < _OLDEST_POSTGRES * 10_000:
        connection.close()
        raise ConfigurationError(f"the database is older than PostgreSQL {_OLDEST_POSTGRES}; upgrade the project")
    try:
        with connection:
            yield connection
    except psycopg.OperationalError as err:
        raise UnavailableError(
            f"the connection to the database was lost ({err.sqlstate}); nothing has been changed, so try again"
        ) from None
    except psycopg.Error as err:
        owner = "; connect as the owner, the user postgres" if err.sqlstate == "42501" else ""
        raise ConfigurationError(
            f"the database rejected a migration, and nothing has been changed: {err.diag.message_primary} "
            f"({err.sqlstate}){owner}"
        ) from None

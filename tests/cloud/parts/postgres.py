"""A PostgreSQL server; if the tests run as root, it runs as another user."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from tests.cloud.parts import downloads
from tests.cloud.parts.processes import Server, free_ports, running


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server and the name of a database."""

    port: int
    server: Server
    database: str = "postgres"
    connections: dict[tuple[str, int], psycopg.Connection] = field(default_factory=dict, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The URL for the owner of the schema, which is the user ``postgres`` in a hosted project."""
        return self.url_of("postgres")

    def url_of(self, role: str, password: str = "unused") -> str:
        """Return the URL for another role."""
        return f"postgres://{role}:{password}@127.0.0.1:{self.port}/{self.database}"

    def new_database(self) -> Postgres:
        """Create an empty database in the same server."""
        name = f"t{secrets.token_hex(6)}"
        self.execute(f"create database {name}")
        return replace(self, database=name)

    def execute(self, query: str, values: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL as the owner, without row-level security, and return the rows of the last statement."""
        cursor = self._connection().execute(_literal(query), values)
        return cursor.fetchall() if cursor.description else []

    def _connection(self) -> psycopg.Connection:
        """Return the one connection to this database since the server started."""
        key = self.database, self.server.pid
        if key not in self.connections:
            self.connections[key] = psycopg.connect(self.url, autocommit=True)
        return self.connections[key]


def _literal(query: str) -> LiteralString:
    return query  # type: ignore[return-value]  # tests write their own SQL


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Run an empty server."""
    (port,) = free_ports(1)
    programs = downloads.postgres_program("initdb").parent
    who: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        name = _unprivileged_user()
        who = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
        shutil.chown(folder, name)
        for above in (folder, *folder.parents):
            if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
        if programs.is_relative_to(downloads.cache()):  # in the home folder, which other users cannot read
            wheel = downloads.cache() / programs.relative_to(downloads.cache()).parts[0]
            programs = shutil.copytree(wheel, folder / "wheel", symlinks=True) / programs.relative_to(wheel)
    data = folder / "data"
    # "C" sorts by code point, as every oracle in the tests does
    options = ["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    initdb = [str(programs / "initdb"), "-D", str(data), *options]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **who)
    settings = ["listen_addresses=127.0.0.1", "fsync=off", "wal_level=logical", "max_connections=100"]
    command = [programs / "postgres", "-D", data, "-p", port, "-k", folder]

    def ready() -> None:
        psycopg.connect(f"postgres://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()

    server = Server(
        "PostgreSQL",
        [*map(str, command), *(word for setting in settings for word in ("-c", setting))],
        log=folder / "postgres.log",
        ready=ready,
        stop_signal=signal.SIGINT,  # disconnect clients instead of waiting for them
        cwd=folder,
        **who,
    )
    with running(server):
        made = Postgres(port, server)
        yield made
        for connection in made.connections.values():
            connection.close()


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise downloads.MissingPartError("PostgreSQL will not run as root, and there is no user postgres or nobody")

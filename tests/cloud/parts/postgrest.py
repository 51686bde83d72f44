"""A PostgREST server on one database, which verifies tokens with the JWKS of the test issuer."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cloud.parts import downloads
from tests.cloud.parts.postgres import Postgres
from tests.cloud.parts.processes import Server, free_ports, running
from tests.cloud.parts.tokens import TokenIssuer


@dataclass(frozen=True)
class Postgrest:
    """A running PostgREST."""

    url: str
    server: Server


@contextlib.contextmanager
def postgrest(folder: Path, database: Postgres, issuer: TokenIssuer) -> Iterator[Postgrest]:
    """Run a server with the settings of hosted Supabase."""
    port, admin_port = free_ports(2)
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(issuer.jwks()))
    config = folder / "postgrest.conf"
    config.write_text(
        f"""
        db-uri = "{database.url_of("authenticator", "authpw")}"
        db-schemas = "public"
        db-anon-role = "anon"
        db-max-rows = 1000
        db-pool-acquisition-timeout = 5
        jwt-secret = "@{jwks}"
        jwt-aud = "authenticated"
        server-host = "127.0.0.1"
        server-port = {port}
        admin-server-port = {admin_port}
        """
    )

    def ready() -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/ready", timeout=2).close()

    server = Server("PostgREST", [downloads.postgrest_binary(), config], log=folder / "postgrest.log", ready=ready)
    with running(server):
        yield Postgrest(f"http://127.0.0.1:{port}", server)

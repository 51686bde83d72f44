"""``s3seg db``: the schema from the command line, on a real database."""

from __future__ import annotations

import json
import uuid

import psycopg
import pytest
from typer.testing import CliRunner

from s3seg.adapters.supabase.migrations import DatabaseConfig, all_migrations, migrate
from s3seg.cli import app
from s3seg.errors import ConfigurationError
from tests.cloud.conftest import SHIM


@pytest.fixture
def database(database_server):
    database = database_server.new_database()
    database.execute(SHIM.read_text())
    return database


@pytest.fixture
def run(database, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3SEG_DATABASE_URL", database.url)
    monkeypatch.setenv("S3SEG_PUBLIC_BASE_URL", "https://pictures.example/it's/")

    def command(*words, **environment):
        return CliRunner().invoke(app, ["db", *words], env=environment)

    return command


def config_of(database):
    return database.execute("select public_base_url, welcome_credits, max_attempts from private.config")


def test_migrating_sets_up_a_database_and_may_be_repeated(run, database):
    before = run("status")
    assert (before.exit_code, before.output.count("missing")) == (1, len(all_migrations()))
    first = run("migrate", S3SEG_WELCOME_CREDITS="7")
    assert (first.exit_code, first.output.count("applied")) == (0, len(all_migrations()))
    assert config_of(database) == [("https://pictures.example/it's", 7, 3)]
    again = run("migrate", S3SEG_WELCOME_CREDITS="8")
    assert (again.exit_code, again.output.count("applied")) == (0, 0)
    assert config_of(database) == [("https://pictures.example/it's", 8, 3)]
    after = run("status")
    assert (after.exit_code, after.output.count("missing")) == (0, 0)


def test_the_rate_limits_of_the_settings_are_stored(run, database):
    rates = "select per_minute from private.rate_limits where (tier, action) = ('free', 'segment')"
    run("migrate")
    assert database.execute(rates) == [(5,)]
    run("migrate", S3SEG_RATE_LIMITS="off")
    assert database.execute(rates)[0][0] > 1_000_000


def test_applied_migrations_are_recorded_as_by_the_supabase_cli(run, database):
    run("migrate")
    rows = database.execute("select version, name from supabase_migrations.schema_migrations order by 1")
    assert rows == [(migration.version, migration.name) for migration in all_migrations()]
    assert all(version.isdigit() and len(version) == 14 for version, _ in rows)


def test_the_script_does_the_same_as_migrating(run, database):
    database.execute(run("sql").output)
    assert config_of(database) == [("https://pictures.example/it's", 10, 3)]
    assert database.execute("select count(*) from pg_tables where schemaname = 'public'") == [(6,)]
    assert run("status").exit_code == 0
    assert run("migrate").output.count("applied") == 0


def test_a_migration_that_fails_changes_nothing(database):
    database.execute("create table public.images (id int)")
    with pytest.raises(ConfigurationError):
        migrate(database.url, DatabaseConfig(public_base_url="https://pictures.example"))
    tables = database.execute("select tablename from pg_tables where schemaname in ('public', 'private')")
    assert tables == [("images",)]
    assert database.execute("select to_regclass('supabase_migrations.schema_migrations')") == [(None,)]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgres://me:geheimnis@127.0.0.1:9/postgres", "nothing listens"),
        ("postgres://me:geheimnis@{host}/postgres", "no such user or database"),
        ("postgres://postgres:geheimnis@{host}/geheimnis", "no such user or database"),
        ("postgres://postgres:geheimnis@no-such-host.invalid/postgres", "no such host"),
        ("https://geheimnis.supabase.co", "not a database URL"),
        ("postgres://postgres:geheim%nis@127.0.0.1/postgres", "percent-encoded"),
        ("[GEHEIMNIS]", "not a database URL"),
    ],
)
def test_a_wrong_database_url_is_explained_without_showing_the_password(run, database, address, said):
    address = address.format(host=f"127.0.0.1:{database.port}")
    for command in ("status", "migrate"):
        answer = run(command, S3SEG_DATABASE_URL=address)
        assert answer.exit_code == 1
        assert "S3SEG_DATABASE_URL" in answer.output
        assert said in answer.output
        assert "geheim" not in answer.output.lower()


def test_a_user_that_is_not_the_owner_is_told_to_connect_as_the_owner(run, database):
    answer = run("migrate", S3SEG_DATABASE_URL=database.url_of("authenticator", "authpw"))
    assert answer.exit_code == 1
    assert "connect as the owner" in answer.output


@pytest.mark.parametrize("command", ["migrate", "sql"])
def test_a_public_base_url_is_required(run, database, command):
    """Otherwise every image would be stored with a URL on loopback."""
    answer = run(command, S3SEG_PUBLIC_BASE_URL="")
    assert answer.exit_code == 1
    assert "S3SEG_PUBLIC_BASE_URL" in answer.output
    assert database.execute("select tablename from pg_tables where schemaname = 'public'") == []


def test_a_missing_database_url_is_explained(run):
    answer = run("migrate", S3SEG_DATABASE_URL="")
    assert answer.exit_code == 1
    assert "s3seg db sql" in answer.output


def test_an_owner_that_is_not_a_superuser_can_migrate_and_serve(database):
    """As in a hosted project; functions of a superuser might be allowed more."""
    owner, user_id = f"owner_{uuid.uuid4().hex}", str(uuid.uuid4())
    database.execute(
        f"""
        create role {owner} login nosuperuser bypassrls;
        alter schema public owner to {owner};
        alter publication supabase_realtime owner to {owner};
        grant create on database {database.database} to {owner};
        grant usage on schema auth to {owner};
        grant references, select on auth.users to {owner};
        insert into auth.users (id) values ('{user_id}');
        """
    )
    migrate(database.url_of(owner), DatabaseConfig(public_base_url="https://pictures.example"))
    claims = {"sub": user_id, "role": "authenticated", "is_anonymous": False}
    key = f"users/{user_id}/images/{'a' * 32}.png"
    with psycopg.connect(database.url_of("authenticator", "authpw"), autocommit=True) as connection:
        connection.execute("set role authenticated")
        connection.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps(claims),))
        connection.execute("select public.register_image(%s, 'image/png', 1, 1, 1)", (key,))
        for prompts in (["cat"], ["cat", "dog"]):
            connection.execute(
                "select public.submit_segmentation(%s, %s)", (f"https://pictures.example/{key}", prompts)
            )
        connection.execute("insert into public.projects (name) values ('zoo')")
        tasks = connection.execute("select id, text_prompt from public.segmentation_results order by created_at")
        (first, _), (second, prompt) = tasks.fetchall()
        assert prompt == "cat, dog"
        connection.execute("select public.cancel_task(%s)", (second,))
        connection.execute("reset role; set role service_role")
        connection.execute("select public.worker_claim('w', %s, 30)", (first,))
        connection.execute(
            "select public.worker_finish(%s, 'w', 1, 'https://pictures.example/m.png', '{cat}', '{}', '{m.png}')",
            (first,),
        )
        statuses = connection.execute("select status::text from public.segmentation_results order by created_at")
        assert statuses.fetchall() == [("done",), ("error",)]
        assert connection.execute("select credits from public.profiles").fetchone() == (9,)
    database.execute("delete from auth.users")
    assert database.execute("select count(*) from public.segmentation_results") == [(0,)]

"""What Supabase Realtime can tell whom: the publication, and the policy as Realtime evaluates it.

The Realtime server itself is a program in Elixir that cannot be had here. It follows the publication, and for each
change and subscriber it reads the row by its key, as the subscriber's role and with the claims of their token.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from s3seg.adapters.supabase.migrations import all_migrations
from s3seg.app import Parts
from s3seg.app.settings import Settings
from s3seg.client import Client, _core
from s3seg.client.signin import sessions
from s3seg.commands.doctor.services import examine_services
from s3seg.errors import ConfigurationError
from s3seg.testing.harness import PUBLIC_BASE
from tests.cloud.direct_client import user_with_data
from tests.cloud.parts.gateway import PUBLISHABLE_KEY
from tests.commands.running import command
from tests.helpers.fake_supabase import FakeSupabase
from tests.helpers.pictures import encoded
from tests.helpers.signing_in import edge_of, until

TABLE = "public.segmentation_results"


@pytest.fixture(autouse=True)
def empty(project):
    project.empty()


def task_of(project, user_id):
    ((task_id,),) = project.database.execute(f"select id::text from {TABLE} where user_id = %s", (user_id,))
    return task_id


def seen(project, task_id, *, role="authenticated", **claims):
    """The status that Realtime would tell a subscriber, or None if it would tell nothing."""
    with psycopg.connect(project.database.url, autocommit=True) as connection, connection.transaction():
        connection.execute("select set_config('role', %s, true)", (role,))
        connection.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps({"role": role, **claims}),))
        try:
            row = connection.execute(f"select status::text from {TABLE} where id = %s", (task_id,)).fetchone()
        except psycopg.errors.InsufficientPrivilege:
            return None
        return row and row[0]


def test_users_is_live_of_their_own_tasks_and_of_no_others(project, sign_up):
    ann, _ = user_with_data(sign_up)
    bob, _ = user_with_data(sign_up)
    tasks = {user: task_of(project, user) for user in (ann, bob)}
    for user in (ann, bob):
        for owner, task_id in tasks.items():
            assert seen(project, task_id, sub=user) == ("pending" if user == owner else None)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": "OWN", "is_anonymous": True},
        {"sub": str(uuid.uuid4())},
        {"sub": "OWN", "role": "anon"},
    ],
)
def test_subscribers_who_are_not_signed_in_as_the_owner_is_live_nothing(project, sign_up, claims):
    ann, _ = user_with_data(sign_up)
    claims = {name: ann if value == "OWN" else value for name, value in claims.items()}
    assert seen(project, task_of(project, ann), **claims) is None


def test_the_role_of_visitors_is_told_nothing(project, sign_up):
    ann, _ = user_with_data(sign_up)
    assert seen(project, task_of(project, ann), role="anon", sub=ann) is None


def test_a_client_that_signed_in_is_told_of_its_task_and_not_of_those_of_others(
    project, sign_up, tmp_path, monkeypatch
):
    """The edge offers it, PostgreSQL decides what is told, and only the transport is a stand-in."""
    monkeypatch.setattr(sessions, "_default_folder", lambda: tmp_path / "sign-ins")
    monkeypatch.setattr(sessions, "system_keyring", lambda: None)
    monkeypatch.setattr(project.realtime, "may_see", lambda user, task: seen(project, task, sub=user) is not None)
    monkeypatch.setattr(_core, "_LONGEST_WAIT_S", 600.0)
    monkeypatch.setattr(_core, "_SHORTEST_POLL_S", 500.0)
    supabase = FakeSupabase(project.gateway.url, project.auth, project.realtime)
    chosen = {"task_store": "supabase", "object_store": "memory", "public_base_url": PUBLIC_BASE}
    stranger, _ = user_with_data(sign_up)
    with edge_of(supabase, tmp_path, supabase_realtime=True, **chosen) as url:
        ann = project.auth.sign_up("ann@example.com")
        project.sign_up(ann.user_id)
        assert command("login", url, "--email", ann.email, input=ann.password).exit_code == 0
        with Client.signed_in(url) as client, ThreadPoolExecutor() as threads:
            task = client.submit(client.upload(encoded()).image_url, "cat")
            reads = []
            client._http.event_hooks = {"response": [lambda response: reads.append(response.request.method)]}
            waiting = threads.submit(client.wait, task.task_id, timeout=1000)
            until(lambda: reads == ["GET", "GET"])  # once, and once more when Realtime began to tell
            project.realtime.publish(stranger, task_of(project, stranger), "done")
            assert client.cancel(task.task_id).status == "error"
            assert not waiting.done()
            project.realtime.publish(ann.user_id, task.task_id, "error")
            assert waiting.result(20).error_message == "cancelled"


def test_the_change_of_a_status_is_published(project, sign_up, service):
    """With the plugin pgoutput, as far as its messages have a letter for what they are: U is an update."""
    ann, _ = user_with_data(sign_up)
    slot = f"s_{uuid.uuid4().hex[:12]}"
    project.database.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    try:
        assert (
            service.call("worker_claim", p_worker="w", p_task_id=task_of(project, ann), p_lease_s=60).status_code == 200
        )
        changes = project.database.execute(
            "select data from pg_logical_slot_get_binary_changes("
            "%s, null, null, 'proto_version', '1', 'publication_names', 'supabase_realtime')",
            (slot,),
        )
    finally:
        project.database.execute("select pg_drop_replication_slot(%s)", (slot,))
    messages = [bytes(data) for (data,) in changes]
    assert [one[:1] for one in messages].count(b"U") == 1
    (update,) = [one for one in messages if one[:1] == b"U"]
    assert b"processing" in update
    assert ann.encode() in update


@pytest.fixture
def unpublished(project):
    project.database.execute(f"alter publication supabase_realtime drop table {TABLE}")
    yield
    if not published(project):
        project.database.execute(f"alter publication supabase_realtime add table {TABLE}")


def published(project):
    return project.database.execute("select public.s3seg_realtime()") == [(True,)]


def migration():
    (found,) = [one.sql for one in all_migrations() if one.name == "s3seg_realtime"]
    return found.replace("create function", "create or replace function")


def test_the_migration_adds_the_table_where_it_is_missing(project, unpublished):
    assert not published(project)
    project.database.execute(migration())
    assert published(project)
    project.database.execute(migration())  # it is there already
    assert published(project)


def test_a_project_without_the_publication_is_left_without(database_server):
    database = database_server.new_database()
    without = migration().partition("create or replace function")[0]
    database.execute(without)
    assert database.execute("select count(*) from pg_publication") == [(0,)]


def settings(project, **changes):
    return Settings(
        _env_file=None,
        authenticator="supabase",
        task_store="supabase",
        public_base_url=PUBLIC_BASE,
        supabase_url=project.gateway.url,
        supabase_publishable_key=PUBLISHABLE_KEY,
        **changes,
    )


@pytest.mark.parametrize(("realtime", "found"), [(True, "problem"), (False, "ok")])
def test_the_doctor_reports_a_table_that_is_not_published(project, unpublished, realtime, found):
    async def examine():
        parts = Parts(settings(project, supabase_realtime=realtime))
        try:
            return await examine_services(parts, ["task_store"])
        finally:
            await parts.aclose()

    (finding,) = asyncio.run(examine())
    assert finding.status == found
    if realtime:
        assert "S3SEG_SUPABASE_REALTIME is on" in finding.advice


def test_the_doctor_accepts_a_table_that_is_published(project):
    async def probe():
        parts = Parts(settings(project, supabase_realtime=True))
        try:
            await parts.task_store.probe()
        finally:
            await parts.aclose()

    asyncio.run(probe())


def test_an_old_schema_is_told_as_such(project):
    project.database.execute("alter function public.s3seg_realtime() rename to renamed; notify pgrst, 'reload schema'")
    try:
        with pytest.raises(ConfigurationError, match="s3seg db migrate"):
            test_the_doctor_accepts_a_table_that_is_published(project)
    finally:
        project.database.execute(
            "alter function public.renamed() rename to s3seg_realtime; notify pgrst, 'reload schema'"
        )

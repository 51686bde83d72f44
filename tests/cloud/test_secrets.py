"""Secrets, tokens and rows appear in no log, no repr and no error."""

from __future__ import annotations

import asyncio
import logging
import re
import sys

import httpx
import pytest
from postgrest import APIError
from pydantic import SecretStr

from s3seg.adapters.supabase.errors import translated
from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import SupabaseTaskStore
from s3seg.adapters.supabase.work import SupabaseTaskQueue
from s3seg.app import Parts, gpu_app
from s3seg.app.settings import Settings
from s3seg.commands.doctor.services import examine_services
from s3seg.errors import CheckpointError, ConfigurationError, S3segError
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import NewImage
from s3seg.testing.harness import PUBLIC_BASE
from tests.cloud.harness import SupabaseHarness
from tests.cloud.parts.gateway import PUBLISHABLE_KEY, SECRET_KEY
from tests.cloud.parts.seaweed import ACCESS_KEY, BUCKET
from tests.cloud.parts.seaweed import SECRET_KEY as S3_SECRET
from tests.cloud.test_r2 import r2
from tests.helpers.serving import served

pytestmark = pytest.mark.anyio


@pytest.fixture
async def harness(project):
    harness = SupabaseHarness(project)
    yield harness
    await harness.aclose()


def everything_in(err):
    """Return what a log would show of an error and of its causes."""
    words = [str(err), repr(err)]
    cause = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
    return " ".join(words) + (everything_in(cause) if cause is not None else "")


async def test_messages_of_the_database_are_not_passed_on(harness):
    """For invalid values of all kinds: the errors of PostgreSQL quote rows, constraints and values."""
    user = await harness.user(tier=Tier.ENTERPRISE)
    project = await harness.store.create_project(user, "mine")
    secret = "geheimnis"
    image = NewImage(
        object_key=new_image_key(user.user_id, "image/png"), content_type=secret, size_bytes=1, width=1, height=1
    )
    errors = []
    for attempt in (
        harness.store.register_image(user, image),
        harness.store.create_project(user, secret * 100),
        harness.store.create_project(user, f"{secret}\0"),
        harness.store.create_project(user, f"{secret}\ud800"),
        harness.store.rename_project(user, project.project_id, ""),
        harness.store.submit(user, TaskRequest(image_url=secret, prompts=(secret,))),
        harness.store.submit(user, TaskRequest(image_url=secret, prompts=(f"{secret}\n",))),
        harness.accounts.ensure(secret),
        harness.accounts.adjust(user.user_id, 2**40),
    ):
        with pytest.raises(S3segError) as refused:
            await attempt
        errors.append(everything_in(refused.value))
    for words in errors:
        assert secret not in words
        for leak in (user.user_id, user.token, "constraint", "violates", "Failing row", "images_", "public."):
            assert leak not in words


@pytest.mark.parametrize(
    "code",
    ["PT400", "PT401", "PT402", "PT403", "PT409", "PT429", "23514", "22P02", "42501", "42883", "57014", "PGRST301",
     "PGRST000", "XX000", "404", None, "PGRST103", "PGRST116", "<script>"],
)  # fmt: skip
def test_every_error_gets_a_message_of_our_own(code):
    for detail in (None, "geheimnis", '{"credits": "geheimnis"}', "[1]", '{"limit": "geheimnis"}', 7):
        error = translated(APIError({"code": code, "message": "geheimnis", "hint": "geheimnis", "details": detail}))
        assert "geheimnis" not in everything_in(error) or (code, detail) == ("PT402", '{"credits": "geheimnis"}')
        assert "<" not in str(error)


async def test_no_log_contains_a_key_or_a_token(harness, s3, caplog):
    caplog.set_level(logging.DEBUG)
    user = await harness.user()
    task = await harness.submit(user)
    await harness.store.list_tasks(user)
    await harness.queue.claim_batch("w", limit=1, lease_s=30)
    store = r2(s3)
    await store.put(new_image_key(user.user_id, "image/png"), b"x")
    await store.probe()
    await store.aclose()
    assert len(caplog.records) > 10
    for secret in (user.token, user.token.split(".")[2], PUBLISHABLE_KEY, SECRET_KEY, S3_SECRET):
        assert secret not in caplog.text
    assert task.task_id


def settings_of(project, s3, tmp_path, **changes):
    known = {
        "data_dir": tmp_path,
        "public_base_url": PUBLIC_BASE,
        "object_store": "r2",
        "task_store": "supabase",
        "authenticator": "supabase",
        "supabase_url": project.gateway.url,
        "supabase_publishable_key": SecretStr(PUBLISHABLE_KEY),
        "supabase_secret_key": SecretStr(SECRET_KEY),
        "supabase_jwt_secret": SecretStr("a legacy secret of more than thirty-two bytes"),
        "database_url": SecretStr("postgres://postgres:passwort@db.example/postgres"),
        "r2_endpoint_url": s3.endpoint,
        "r2_bucket": BUCKET,
        "r2_access_key_id": ACCESS_KEY,
        "r2_secret_access_key": SecretStr(S3_SECRET),
        "_env_file": None,
    }
    return Settings(**{**known, **changes})


async def test_no_repr_shows_a_secret(project, s3, tmp_path):
    settings = settings_of(project, s3, tmp_path)
    parts = Parts(settings)
    shown = " ".join(
        map(repr, [settings, settings.model_dump(), parts.objects, parts.task_store, parts.task_queue,
                   parts.accounts, parts.authenticator, vars(parts.task_store), vars(parts.objects)])
    )  # fmt: skip
    for secret in (PUBLISHABLE_KEY, SECRET_KEY, S3_SECRET, "a legacy secret", "passwort"):
        assert secret not in shown
    await parts.aclose()


# --- s3seg doctor --services


async def test_working_services_are_reported_as_ok(project, s3, tmp_path):
    parts = Parts(settings_of(project, s3, tmp_path))
    found = await examine_services(parts)
    assert [(finding.topic, finding.status, finding.advice) for finding in found] == [
        (topic, "ok", None) for topic in ("object_store", "task_store", "authenticator", "task_queue", "accounts")
    ]
    await parts.aclose()


@pytest.mark.parametrize(
    ("change", "topics", "named"),
    [
        ({"supabase_url": None}, {"task_store", "task_queue", "accounts", "authenticator"}, "S3SEG_SUPABASE_URL"),
        (
            {"supabase_publishable_key": None, "supabase_secret_key": None},
            {"task_store", "task_queue", "accounts"},
            "is not set",
        ),
        ({"supabase_publishable_key": SecretStr("geheim")}, {"task_store"}, "S3SEG_SUPABASE_PUBLISHABLE_KEY"),
        ({"supabase_secret_key": SecretStr("geheim")}, {"task_queue", "accounts"}, "S3SEG_SUPABASE_SECRET_KEY"),
        ({"supabase_secret_key": SecretStr(PUBLISHABLE_KEY)}, {"task_queue", "accounts"}, "S3SEG_SUPABASE_SECRET_KEY"),
        ({"supabase_jwt_secret": SecretStr("geheim, and long enough")}, {"authenticator"}, "S3SEG_SUPABASE_JWT_SECRET"),
        ({"public_base_url": "https://else.example"}, {"task_store", "task_queue", "accounts"}, "PUBLIC_BASE_URL"),
        ({"r2_secret_access_key": SecretStr("geheim")}, {"object_store"}, "S3SEG_R2_SECRET_ACCESS_KEY"),
        ({"r2_bucket": "no-such-bucket"}, {"object_store"}, "S3SEG_R2_BUCKET"),
        ({"r2_bucket": None}, {"object_store"}, "S3SEG_R2_BUCKET"),
        ({"authenticator": "local"}, {"task_store"}, "S3SEG_AUTHENTICATOR"),
    ],
)
async def test_a_wrong_setting_is_named_with_advice(project, s3, tmp_path, change, topics, named):
    parts = Parts(settings_of(project, s3, tmp_path, **change))
    found = await examine_services(parts)
    problems = {finding.topic: finding for finding in found if finding.status == "problem"}
    assert set(problems) == topics
    for finding in problems.values():
        assert named in (finding.advice or "")
        assert "geheim" not in f"{finding.value} {finding.advice}"
    await parts.aclose()


@pytest.mark.parametrize(
    ("lacking", "topics"),
    [("supabase_secret_key", {"task_queue", "accounts"}), ("supabase_publishable_key", {"task_store"})],
)
async def test_a_service_needs_no_key_of_the_others(project, s3, tmp_path, lacking, topics):
    parts = Parts(settings_of(project, s3, tmp_path, **{lacking: None}))
    found = await examine_services(parts)
    assert {finding.topic for finding in found if finding.status == "note"} == topics
    assert {finding.status for finding in found} == {"ok", "note"}
    await parts.aclose()


async def test_a_library_that_is_not_installed_is_named(project, s3, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("s3seg.adapters.supabase.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "s3seg.adapters.supabase")
    monkeypatch.setitem(sys.modules, "postgrest", None)
    parts = Parts(settings_of(project, s3, tmp_path))
    with pytest.raises(ConfigurationError) as refused:
        _ = parts.task_store
    assert "postgrest" in str(refused.value)
    assert "s3seg[cloud]" in str(refused.value)


async def test_servers_that_do_not_respond_are_reported(s3, project, tmp_path):
    nowhere = "http://127.0.0.1:9"
    changes = {"supabase_url": nowhere, "r2_endpoint_url": nowhere}
    parts = Parts(settings_of(project, s3, tmp_path, **changes))
    found = await examine_services(parts)
    assert {finding.status for finding in found} == {"problem"}
    assert all("does not respond" in finding.value or "cannot fetch" in finding.value for finding in found)
    named = {finding.topic: re.search(r"S3SEG_\w+", finding.advice) for finding in found}
    assert {topic: setting and setting[0] for topic, setting in named.items()} == {
        "object_store": "S3SEG_R2_ENDPOINT_URL",
        **dict.fromkeys(("task_store", "authenticator", "task_queue", "accounts"), "S3SEG_SUPABASE_URL"),
    }
    await parts.aclose()


@pytest.mark.parametrize("lost", ["rest/v1", "no/such/path"])
async def test_a_url_of_another_service_is_reported_as_wrong(project, s3, tmp_path, lost):
    """For example the URL of the S3 server instead of that of the project."""
    settings = settings_of(project, s3, tmp_path)
    parts = Parts(settings.model_copy(update={"supabase_url": f"{s3.endpoint}/{lost}"}))
    found = await examine_services(parts, ["task_store", "authenticator", "task_queue"])
    assert {finding.status for finding in found} == {"problem"}
    assert all("S3SEG_SUPABASE_URL" in f"{finding.value} {finding.advice}" for finding in found)
    await parts.aclose()


async def test_the_key_of_the_gpu_service_is_checked(project, s3, tmp_path):
    def load():
        raise CheckpointError("no weights here")

    service = gpu_app(
        Settings(
            _env_file=None, object_store="memory", task_store="memory", api_secret_key="the kéy between edge and gpu"
        ),
        load=load,
    )
    with served(service) as url:
        for key, status, named in [
            ("the kéy between edge and gpu", "ok", ""),
            ("another key of some length", "problem", "API_SECRET_KEY"),
        ]:
            changes = {"inference": "http", "gpu_url": url, "api_secret_key": SecretStr(key)}
            parts = Parts(settings_of(project, s3, tmp_path, **changes))
            found = (await examine_services(parts))[-1]
            assert (found.topic, found.status) == ("inference", status)
            assert named in (found.advice or "")
            await parts.aclose()
    parts = Parts(settings_of(project, s3, tmp_path, **changes))
    away = (await examine_services(parts))[-1]
    assert away.status == "note"  # only a note, since tasks wait for it
    assert "S3SEG_GPU_URL" in away.advice
    await parts.aclose()


async def test_a_database_without_the_schema_is_reported_with_advice(folder, database_server):
    from tests.cloud.conftest import SHIM
    from tests.cloud.parts.gateway import gateway
    from tests.cloud.parts.postgrest import postgrest
    from tests.cloud.parts.tokens import TokenIssuer

    database, issuer = database_server.new_database(), TokenIssuer()
    database.execute(SHIM.read_text())
    home = folder / database.database
    home.mkdir()
    with postgrest(home, database, issuer) as rest, gateway(rest.url, issuer) as front:
        store = SupabaseTaskStore(Rest(front.url, SecretStr(PUBLISHABLE_KEY)), public_base=PUBLIC_BASE)
        queue = SupabaseTaskQueue(Rest(front.url, SecretStr(SECRET_KEY)), public_base=PUBLIC_BASE)
        for part in (store, queue):
            with pytest.raises(ConfigurationError) as refused:
                await part.check()
            assert "s3seg db migrate" in str(refused.value)
            await part.aclose()


# --- separation of users


async def test_concurrent_users_each_get_their_own_data(harness):
    users = [await harness.user(credits=10 + number) for number in range(12)]
    asked = users * 8
    accounts = await asyncio.gather(*(harness.store.account(user) for user in asked))
    assert [account.user_id for account in accounts] == [user.user_id for user in asked]
    assert [account.credits for account in accounts] == [10 + number for number in range(12)] * 8


async def test_no_cookie_is_passed_from_one_user_to_another():
    """Supabase's gateway sets cookies, which must not be sent with the next request."""
    seen = []

    async def answer(request):
        seen.append(request.headers)
        return httpx.Response(200, json={}, headers={"Set-Cookie": f"session={len(seen)}; Path=/"})

    rest = Rest("https://project.example", SecretStr(PUBLISHABLE_KEY), transport=httpx.MockTransport(answer))
    for token in ("one", "other"):
        await rest.call(rest.as_user(token), "my_account", {})
    assert [headers["authorization"] for headers in seen] == ["Bearer one", "Bearer other"]
    assert all("cookie" not in headers for headers in seen)
    await rest.aclose()

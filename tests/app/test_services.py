import asyncio
import json
import os
import subprocess
import sys

import httpx
import jwt
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from s3seg import app
from s3seg.adapters.memory import MemoryObjectStore, MemoryRateLimiter
from s3seg.adapters.sqlite import SqliteAccounts, SqliteRateLimiter, SqliteTaskQueue, SqliteTaskStore
from s3seg.app import Parts, maintenance
from s3seg.app.settings import Settings
from s3seg.cli import app as cli
from s3seg.errors import ConfigurationError
from s3seg.tasks.health import health_check
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.object_keys import new_image_key

anyio = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("API_SECRET_KEY", "S3SEG_API_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("S3SEG_DATA_DIR", str(tmp_path / "data"))


# --- settings


def test_settings_are_read_from_the_environment_and_frozen(monkeypatch, tmp_path):
    monkeypatch.setenv("S3SEG_WELCOME_CREDITS", "7")
    settings = Settings()
    assert (settings.welcome_credits, settings.data_dir) == (7, tmp_path / "data")
    with pytest.raises(ValidationError):
        settings.welcome_credits = 8


@pytest.mark.parametrize("name", ["API_SECRET_KEY", "S3SEG_API_SECRET_KEY"])
def test_a_secret_shows_in_no_repr_and_no_error(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2-hunter2-hunter2")
    settings = Settings()
    assert settings.api_secret_key is not None
    assert settings.api_secret_key.get_secret_value() == "hunter2-hunter2-hunter2"
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown
    monkeypatch.setenv("S3SEG_WELCOME_CREDITS", "hunter2-hunter2-hunter2")
    with pytest.raises(ConfigurationError, match="S3SEG_WELCOME_CREDITS") as refused:
        Settings()
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("S3SEG_PUBLIC_BASE_URL", "pictures.example", "not a URL"),
        ("S3SEG_PUBLIC_BASE_URL", "https://pictures.example/?x", "not a URL"),
        ("S3SEG_GPU_URL", "http://", "not a URL"),
        ("S3SEG_SUPABASE_URL", "project.supabase.co", "not a URL"),
        ("S3SEG_SUPABASE_URL", "http://[bad", "not a URL"),
        ("S3SEG_SUPABASE_URL", "https://project.supabase.co/rest/v1", "/rest/v1"),
        ("S3SEG_R2_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com/pictures", "bucket"),
        ("S3SEG_R2_BUCKET", "My Pictures", "bucket"),
        ("S3SEG_R2_ACCESS_KEY_ID", "hunter “2”", "copy it again"),
        ("S3SEG_R2_SECRET_ACCESS_KEY", "hunter 2", "copy it again"),
        ("S3SEG_SUPABASE_SECRET_KEY", "sb_secret_hunter\u201d", "copy it again"),
        ("S3SEG_SUPABASE_PUBLISHABLE_KEY", "sb_secret_hunter", "the edge must never have"),
        ("S3SEG_SUPABASE_PUBLISHABLE_KEY", jwt.encode({"role": "service_role"}, "k" * 32), "the edge must never have"),
        ("S3SEG_API_SECRET_KEY", "hunter2-hunter2", "openssl rand -hex 32"),
        ("S3SEG_API_SECRET_KEY", "  hunter2        ", "shorter than 16 bytes"),
        ("S3SEG_API_SECRET_KEY_PREVIOUS", "hunter", "shorter than 16 bytes"),
        ("S3SEG_SUPABASE_JWT_SECRET", "hunter", "shorter than 16 bytes"),
        ("S3SEG_CORS_ORIGINS", "https://app.example", "JSON"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_the_reason(monkeypatch, name, value, why):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=why) as refused:
        Settings()
    assert name.removeprefix("S3SEG_").lower() in str(refused.value).lower()
    assert "hunter" not in str(refused.value)


def test_a_key_may_be_pasted_with_the_end_of_its_line(monkeypatch):
    monkeypatch.setenv("S3SEG_SUPABASE_SECRET_KEY", " sb_secret_x\r\n")
    monkeypatch.setenv("S3SEG_SUPABASE_PUBLISHABLE_KEY", jwt.encode({"role": "anon"}, "k" * 32) + "\n")
    settings = Settings()
    assert settings.supabase_secret_key is not None
    assert settings.supabase_secret_key.get_secret_value() == "sb_secret_x"
    assert settings.supabase_publishable_key is not None


def test_a_dotenv_file_is_read(tmp_path):
    (tmp_path / ".env").write_text("S3SEG_TASK_DEADLINE_S=60\nSOMETHING_ELSE=1\n")
    assert Settings().task_deadline_s == 60


def test_limits_can_be_lifted():
    assert Settings().rates[Tier.FREE][Action.SEGMENT] == 5
    assert Settings(rate_limits="off").rates[Tier.FREE][Action.SEGMENT] > 1_000_000


# --- adapters


@anyio
async def test_the_defaults_need_nothing_installed():
    parts = app.Parts()
    for part in (
        parts.objects,
        parts.task_store,
        parts.task_queue,
        parts.accounts,
        parts.authenticator,
        parts.rate_limiter,
        parts.notifier,
    ):
        await part.check()
    assert isinstance(parts.task_store, SqliteTaskStore)
    assert parts.task_store is parts.task_store
    await parts.aclose()
    await parts.aclose()


@anyio
async def test_queue_and_accounts_follow_the_task_store():
    parts = app.Parts(Settings(task_store="sqlite"))
    assert isinstance(parts.task_queue, SqliteTaskQueue)
    assert isinstance(parts.accounts, SqliteAccounts)
    memory = app.Parts(Settings(task_store="memory", object_store="memory"))
    user = "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f"
    await memory.accounts.adjust(user, 5)
    assert [entry.delta for entry in await memory.accounts.ledger(user)] == [10, 5]
    assert await memory.task_queue.reap() == []


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        ({}, SqliteRateLimiter),
        ({"task_store": "memory"}, MemoryRateLimiter),
        ({"rate_limiter": "memory"}, MemoryRateLimiter),
        ({"task_store": f"{__name__}:third_party"}, MemoryRateLimiter),
        ({"rate_limits": "off"}, MemoryRateLimiter),
    ],
)
def test_the_rate_limiter_follows_the_task_store(chosen, kind):
    assert type(app.Parts(Settings(**chosen)).rate_limiter) is kind


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@anyio
async def test_everything_in_the_data_directory_is_its_owners_only(tmp_path):
    before = os.umask(0)
    try:
        parts = app.Parts()
        key = new_image_key("0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f", "image/png")
        await parts.objects.put(key, b"picture")
        for part in (parts.objects, parts.task_store, parts.authenticator, parts.rate_limiter):
            await part.check()
        made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
        modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in made}
        await parts.aclose()
    finally:
        os.umask(before)
    expected = (f"objects/{key}", "tasks.sqlite3", "tasks.sqlite3-wal", "rate-limits.sqlite3", "auth/signing-key.pem")
    assert {f"data/{name}" for name in expected} <= set(modes)
    assert modes == {name: 0o700 if (tmp_path / name).is_dir() else 0o600 for name in modes}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@anyio
async def test_what_an_earlier_version_left_open_to_others_is_closed_or_told(tmp_path, caplog):
    parts = app.Parts()
    for part in (parts.objects, parts.task_store, parts.authenticator):
        await part.check()
    await parts.aclose()
    data = tmp_path / "data"
    ours = [data / "objects", data / "tasks.sqlite3", data / "auth" / "signing-key.pem"]
    for path in (data, *ours):
        path.chmod(0o755)
    parts = app.Parts()
    for part in (parts.objects, parts.task_store, parts.authenticator):
        await part.check()
    await parts.aclose()
    assert [path.stat().st_mode & 0o077 for path in ours] == [0, 0, 0]
    assert f"chmod go-rwx {data}" in caplog.text


def third_party(settings: Settings) -> MemoryObjectStore:
    return MemoryObjectStore(public_base=settings.public_base_url)


@anyio
async def test_a_dotted_path_chooses_a_third_partys_adapter():
    parts = app.Parts(Settings(object_store=f"{__name__}:third_party", public_base_url="https://x/f"))
    assert parts.objects.url("a.png") == "https://x/f/a.png"


@pytest.mark.parametrize("name", ["nothing", "no.such.module:factory", f"{__name__}:nothing", "", "/etc"])
def test_an_unknown_adapter_is_named_with_the_remedy(name):
    with pytest.raises(ConfigurationError, match="object_store="):
        _ = app.Parts(Settings(object_store=name)).objects


# --- commands


def run(*arguments: str):
    return CliRunner().invoke(cli, arguments)


@anyio
async def test_a_printed_token_is_accepted_and_its_account_has_the_tier():
    result = await asyncio.to_thread(run, "token", "--user", "alice", "--tier", "pro")
    assert result.exit_code == 0
    parts = app.Parts()
    identity = await parts.authenticator.authenticate(result.stdout.strip())
    assert (await parts.task_store.account(identity)).tier == Tier.PRO
    await parts.aclose()


def test_no_token_is_made_that_the_service_would_not_accept(monkeypatch, tmp_path):
    monkeypatch.setenv("S3SEG_AUTHENTICATOR", "supabase")
    refused = run("token", "--user", "alice")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "S3SEG_AUTHENTICATOR=supabase" in refused.stderr
    assert not (tmp_path / "data" / "auth").exists()


def test_credits_and_tiers_are_moved_by_commands():
    assert "alice: 110 credits" in run("admin", "credits", "alice", "+100", "--create").output
    assert "alice: 60 credits" in run("admin", "credits", "alice", "-50").output
    refused = run("admin", "credits", "alice", "-61")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "has 60 credits" in refused.stderr
    assert "alice: tier pro, 60 credits" in run("admin", "tier", "alice", "pro").output
    assert run("admin", "tier", "alice", "gold").exit_code == 2


def test_maintenance_commands_report_what_they_did():
    assert run("admin", "reap").output == "ended 0 tasks\n"
    assert run("admin", "gc", "--dry-run").output.startswith("would remove 0 objects")
    assert run("admin", "gc").output.startswith("removed 0 objects")


HEAVY = {"torch", "numpy", "boto3", "supabase", "httpx", "starlette", "pandas", "PIL"}


@pytest.mark.parametrize(
    "module",
    ["s3seg.tasks.ports", "s3seg.app.services", "s3seg.app.settings", "s3seg.commands.admin", "s3seg.adapters.sqlite"],
)
def test_the_services_core_imports_nothing_heavy(module):
    script = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment)
    assert not HEAVY & set(json.loads(result.stdout))


# --- services that share their data


@anyio
async def test_a_mismatch_of_public_base_urls_is_told_by_the_worker_and_by_the_edge_that_is_older():
    edge = app.Parts(Settings(public_base_url="http://127.0.0.1:9000/files"))
    gpu = app.Parts(Settings(public_base_url="http://127.0.0.1:8000/files"))
    assert await health_check(gpu.task_queue) is None  # no edge has been started yet
    await edge.announce()
    said = await health_check(gpu.task_queue)
    assert said is not None
    for words in ("S3SEG_PUBLIC_BASE_URL", "http://127.0.0.1:8000/files", "http://127.0.0.1:9000/files"):
        assert words in said
    assert await health_check(edge.task_store) is None
    moved = app.Parts(Settings(public_base_url="http://127.0.0.1:9001/files/"))
    await moved.announce()
    assert await health_check(moved.task_store) is None
    assert "9001" in (await health_check(edge.task_store) or "")
    for parts in (edge, gpu, moved):
        await parts.aclose()


@anyio
@pytest.mark.parametrize(
    ("chosen", "begun"),
    [
        ({}, {"reap", "expire", "gc"}),
        ({"reap_every_s": 0}, {"gc"}),
        ({"gc_every_h": 0}, {"reap", "expire"}),
        ({"reap_every_s": 0, "gc_every_h": 0}, set()),
    ],
)
async def test_services_do_their_maintenance_by_themselves_unless_it_is_switched_off(monkeypatch, chosen, begun):
    monkeypatch.setattr("s3seg.tasks.maintenance._PAUSE_S", 0.01)
    parts, asked = app.Parts(Settings(**chosen)), set()
    begin_job = parts.accounts.begin_job

    async def recorded(name, *, every_s):
        asked.add(name)
        return await begin_job(name, every_s=every_s)

    monkeypatch.setattr(parts.accounts, "begin_job", recorded)
    async with maintenance(parts), asyncio.timeout(20):
        while asked != begun:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    assert asked == begun
    await parts.aclose()


@anyio
async def test_an_edge_without_the_key_of_operators_does_no_maintenance(monkeypatch):
    def begin(loop):
        raise AssertionError("it does maintenance")

    monkeypatch.setattr("s3seg.tasks.maintenance.Maintenance.start", begin)
    parts = app.Parts(
        Settings(
            task_store="supabase",
            authenticator="supabase",
            supabase_url="https://project.supabase.co",
            supabase_publishable_key="sb_publishable_x",
        )
    )
    async with maintenance(parts):
        pass
    await parts.aclose()


@anyio
async def test_a_deleted_database_makes_the_service_unavailable_without_a_word_of_where_it_was(tmp_path):
    from httpx import ASGITransport, AsyncClient

    settings = Settings(inference="memory")
    service = app.edge_app(settings)
    token = app.local_keys(settings).mint("ann")
    async with (
        service.router.lifespan_context(service),
        AsyncClient(transport=ASGITransport(service), base_url="http://edge") as http,
    ):
        http.headers["Authorization"] = f"Bearer {token}"
        assert (await http.get("/ready")).status_code == 200
        assert (await http.get("/api/v1/me")).status_code == 200
        for name in ("tasks.sqlite3", "rate-limits.sqlite3"):
            (tmp_path / "data" / name).unlink()
        await asyncio.sleep(1.1)  # an answer of /ready is kept for a second
        for path in ("/ready", "/api/v1/me", "/api/v1/results"):
            response = await http.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "UNAVAILABLE")
            assert "deleted or replaced" in response.json()["error"]["message"]
            assert str(tmp_path) not in response.text
            assert "sqlite" not in response.text.lower()
        upload = await http.post("/api/v1/upload", files={"file": b"x"})
        assert upload.status_code == 503
    assert not (tmp_path / "data" / "tasks.sqlite3").exists()


@anyio
async def test_metrics_of_both_services_tell_parts_and_queue(monkeypatch):
    monkeypatch.setenv("API_SECRET_KEY", "k" * 32)
    parts = Parts(Settings(inference="http"))

    async def gauges(service):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://here") as http:
            lines = (await http.get("/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    seen = await gauges(app.edge_app(parts=parts))
    assert seen['s3seg_part_up{part="tasks"}'] == 1
    assert seen['s3seg_part_up{part="inference"}'] == 0, "no gpu service listens"
    assert (seen["s3seg_tasks_waiting"], seen["s3seg_oldest_wait_seconds"]) == (0, 0)
    seen = await gauges(app.gpu_app(parts=parts))
    assert seen['s3seg_part_up{part="tasks"}'] == 1
    assert seen['s3seg_part_up{part="model"}'] == 0, "it is not started"
    assert seen["s3seg_tasks_waiting"] == 0
    await parts.aclose()

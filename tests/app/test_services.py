import json
import os
import subprocess
import sys

import jwt
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from s3seg import app
from s3seg.adapters.memory import MemoryObjectStore
from s3seg.adapters.sqlite import SqliteAccounts, SqliteTaskQueue, SqliteTaskStore
from s3seg.app.settings import Settings
from s3seg.cli import app as cli
from s3seg.errors import ConfigurationError
from s3seg.tasks.limits import Action, Tier

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
    monkeypatch.setenv(name, "hunter2-hunter2")
    settings = Settings()
    assert settings.api_secret_key is not None
    assert settings.api_secret_key.get_secret_value() == "hunter2-hunter2"
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown
    monkeypatch.setenv("S3SEG_WELCOME_CREDITS", "hunter2-hunter2")
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
    import asyncio

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

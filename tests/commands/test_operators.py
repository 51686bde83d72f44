"""Commands for operators: accounts, tokens, and what `serve` prints."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jwt
import pytest

from s3seg import checkpoints
from s3seg.app import whole_app
from s3seg.app.settings import Settings
from s3seg.commands import serve
from s3seg.commands.users import lifetime, user_id
from s3seg.tasks.object_keys import new_image_key
from tests.commands.running import Command


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3SEG_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("s3seg.web.logs.configure_logging", lambda: None)


# ---- accounts ----


@pytest.mark.parametrize("arguments", [("credits", "ann", "+5"), ("tier", "ann", "pro")])
def test_an_unknown_user_gets_no_account_unless_asked_for(s3seg: Command, arguments: tuple[str, ...]) -> None:
    done = s3seg("admin", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the user 'ann'" in done.stderr
    assert "add --create" in done.stderr
    assert s3seg("admin", *arguments).exit_code == 2, "it was not created by asking"
    assert s3seg("admin", *arguments, "--create").exit_code == 0
    assert s3seg("admin", *arguments).exit_code == 0, "now there is one"


@pytest.mark.parametrize(("answer", "code", "credits"), [("y", 0, "15 credits"), ("n", 1, None), ("", 1, None)])
def test_on_a_terminal_an_unknown_user_is_asked_about(
    s3seg: Command, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, credits: str | None
) -> None:
    monkeypatch.setattr("s3seg.commands.admin._can_ask", lambda: True)
    done = s3seg("admin", "credits", "ann", "+5", input=f"{answer}\n")
    assert done.exit_code == code
    assert "Create the account?" in done.stderr
    assert credits is None or credits in done.stdout
    monkeypatch.setattr("s3seg.commands.admin._can_ask", lambda: False)
    assert s3seg("admin", "credits", "ann", "0").exit_code == (0 if code == 0 else 2)


@pytest.mark.parametrize("arguments", [("credits", "ann", "0"), ("tier", "ann", "pro")])
def test_an_account_without_any_change_of_credits_is_known(
    s3seg: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("S3SEG_WELCOME_CREDITS", "0")
    assert s3seg("admin", "tier", "ann", "free", "--create").exit_code == 0
    assert s3seg("admin", *arguments).exit_code == 0


def test_a_user_with_a_token_is_known(s3seg: Command) -> None:
    assert s3seg("token", "--user", "ann").exit_code == 0
    assert s3seg("admin", "credits", "ann", "+5").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["token", "--user", ""],
        ["token", "--user", "caf\udce9"],
        ["admin", "credits", " ", "5", "--create"],
        ["admin", "credits", "ann", "99999999999999999999", "--create"],
        ["admin", "gc", "--older-than", "nan"],
        ["admin", "gc", "--older-than", "inf"],
    ],
)
def test_values_that_mean_nothing_are_wrong_usage(s3seg: Command, arguments: list[str]) -> None:
    done = s3seg(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "rror" in done.stderr
    assert "bug" not in done.stderr


# ---- unused objects ----


def _old_objects(*users: str) -> list[Path]:
    """Store an object for each user that nothing refers to, two days ago."""
    paths = [Path(Settings().data_dir) / "objects" / new_image_key(user_id(user), "image/png") for user in users]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")
        two_days_ago = time.time() - 2 * 86_400
        os.utime(path, (two_days_ago, two_days_ago))
    return paths


def test_unused_objects_of_unknown_users_are_kept_unless_an_option_names_them(s3seg: Command) -> None:
    assert s3seg("token", "--user", "ann").exit_code == 0
    own, one, other = _old_objects("ann", "ben", "cleo")
    done = s3seg("admin", "gc")
    assert done.stdout.startswith("removed 1 objects (5 bytes)")
    assert "kept 2 objects (10 bytes) of 2 users who have no account in this database" in done.stderr
    assert "--unknown-users" in done.stderr
    assert [path.exists() for path in (own, one, other)] == [False, True, True]
    assert s3seg("admin", "gc", "--unknown-users", "--dry-run").stdout.startswith("would remove 2 objects (10 bytes)")
    assert one.exists()
    done = s3seg("admin", "gc", "--unknown-users")
    assert (done.stdout.startswith("removed 2 objects (10 bytes)"), done.stderr) == (True, "")
    assert [path.exists() for path in (one, other)] == [False, False]


# ---- tokens ----


def test_a_printed_token_says_how_long_it_is_valid_on_stderr(s3seg: Command) -> None:
    done = s3seg("token", "--user", "ann", "--ttl", "7200")
    claims = jwt.decode(done.stdout.strip(), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 7200
    assert done.stderr == "valid for 2 hours\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (90, "90 seconds"), (120, "2 minutes"), (86_400, "24 hours"), (172_800, "2 days")],
)
def test_a_lifetime_is_given_in_its_largest_whole_unit(seconds: int, words: str) -> None:
    assert lifetime(seconds) == words


# ---- serve ----


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The services do not start."""
    monkeypatch.setattr(serve, "_run_with_worker", lambda *_: None)


@pytest.mark.parametrize("command", [["serve", "edge"], ["serve"], ["serve", "gpu", "--insecure-no-key"]])
def test_the_connections_of_a_service_are_a_setting(
    s3seg: Command, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    limits = []
    monkeypatch.setattr("s3seg.web.server.run_server", lambda *_, **options: limits.append(options["limits"]))
    monkeypatch.setenv("S3SEG_MAX_CONNECTIONS", "123")
    done = s3seg(*command)
    assert done.exit_code == 0, done.stderr
    assert [one.connections for one in limits] == [123]


@pytest.mark.usefixtures("served")
def test_serve_prints_lines_that_a_shell_understands(s3seg: Command) -> None:
    done = s3seg("serve", "--port", "8123", "--user", "ann's", "--print-token")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    exports = "\n".join(line for line in lines if line.startswith("export "))
    shown = subprocess.run(
        ["sh", "-c", f'{exports}\necho "$S3SEG_URL $S3SEG_TOKEN"'], capture_output=True, text=True, check=True
    )
    url, token = shown.stdout.split()
    assert url == "http://127.0.0.1:8123"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["user_metadata"] == {"name": "ann's"}
    assert claims["exp"] - claims["iat"] == 86_400
    assert f"In a browser: {url}/#token={token}" in lines
    assert lines[-1] == "The token is valid for 24 hours; for another one, run: s3seg token --user 'ann'\"'\"'s'"


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("options", [[], ["--no-print-token"]])
def test_a_log_gets_no_token_but_the_command_that_prints_one(s3seg: Command, options: list[str]) -> None:
    done = s3seg("serve", "--user", "bob", *options)
    assert done.exit_code == 0, done.stderr
    assert "eyJ" not in done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "S3SEG_TOKEN" in line]
    command = re.fullmatch(r'export S3SEG_TOKEN="\$\((.*)\)"', line)
    assert command
    token = s3seg(*shlex.split(command[1])[1:])
    assert token.exit_code == 0
    assert token.stdout.startswith("eyJ")


@pytest.mark.parametrize("command", [["serve"], ["serve", "gpu", "--insecure-no-key"], ["worker"]])
def test_a_missing_checkpoint_ends_a_service_before_it_prints_anything(s3seg: Command, command: list[str]) -> None:
    done = s3seg(*command, "--checkpoint", "sam3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "s3seg models pull sam3" in done.stderr


def test_a_service_resolves_its_checkpoint_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = []
    resolve = checkpoints.resolve

    def counting(*arguments: object) -> object:
        resolved.append(arguments)
        return resolve(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "resolve", counting)
    service = whole_app(Settings(checkpoint="embedded", decode_processes=0))

    async def load() -> None:
        async with service.router.lifespan_context(service):
            await service.state.engine.loaded()

    asyncio.run(load())
    assert resolved == [("embedded",)]


# ---- packages that are not installed ----


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["db", "status"], "psycopg"),
        (["db", "migrate"], "psycopg"),
        (["admin", "reap"], "postgrest"),
        (["admin", "credits", "ann", "1"], "postgrest"),
        (["token", "--user", "ann"], "postgrest"),
        (["serve", "edge"], "postgrest"),
        (["worker"], "postgrest"),
    ],
)
def test_a_command_that_needs_an_extra_says_how_to_install_it(
    s3seg: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], missing: str
) -> None:
    for name, value in {
        "S3SEG_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x",
        "S3SEG_PUBLIC_BASE_URL": "http://edge.example/files",
        "S3SEG_TASK_STORE": "supabase",
        "S3SEG_SUPABASE_URL": "http://127.0.0.1:1",
        "S3SEG_SUPABASE_SECRET_KEY": "sb_secret_0123456789abcdef",
        "S3SEG_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_0123456789abcdef",
        "S3SEG_AUTHENTICATOR": "local",
    }.items():
        monkeypatch.setenv(name, value)
    for module in [name for name in sys.modules if name.startswith("s3seg.adapters.supabase")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    done = s3seg(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert missing in done.stderr
    assert "pip install 's3seg[cloud]'" in done.stderr


# ---- all that a user has ----


def test_an_operator_exports_and_deletes_an_account(s3seg: Command, tmp_path: Path) -> None:
    assert s3seg("admin", "credits", "ann", "+5", "--create").exit_code == 0
    archive = tmp_path / "ann.tar"
    assert s3seg("admin", "export-account", "ann", str(archive)).exit_code == 0
    with tarfile.open(archive) as found:
        assert found.getnames()[0] == "account.json"
        assert found.getnames()[-1] == "complete.json"
    again = s3seg("admin", "export-account", "ann", str(archive))
    assert again.exit_code == 2
    assert "exists already" in again.stderr

    unsure = s3seg("admin", "delete-account", "ann")
    assert unsure.exit_code == 2
    assert "add --yes" in unsure.stderr
    done = s3seg("admin", "delete-account", "ann", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "1 deleted accounts have nothing left" in done.stdout
    assert "kept: the history of its credits" in done.stdout
    assert s3seg("admin", "delete-account", "ann", "--yes").exit_code == 0, "a repeat changes nothing"
    refused = s3seg("token", "--user", "ann")
    assert refused.exit_code != 0
    assert "deleted" in refused.stderr
    assert "0 images" in s3seg("admin", "expire").stdout


@pytest.mark.parametrize("command", [("delete-account", "ann", "--yes"), ("export-account", "ann", "ann.tar")])
def test_an_account_that_is_not_there_is_said_to_be_misspelt(s3seg: Command, command: tuple[str, ...]) -> None:
    done = s3seg("admin", *command)
    assert done.exit_code == 2
    assert "check the spelling" in done.stderr

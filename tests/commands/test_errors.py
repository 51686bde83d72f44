"""Every command reports errors in the same way: one message, an exit code, and a traceback only with --debug."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s3seg import errors
from s3seg.commands.errors import exit_code
from tests.commands.running import Command, GetPicture

# Each command, with what it calls first that can fail.
COMMANDS = {
    "admin credits": (["admin", "credits", "ann", "+1"], "s3seg.app.Parts"),
    "admin tier": (["admin", "tier", "ann", "pro"], "s3seg.app.Parts"),
    "admin gc": (["admin", "gc"], "s3seg.app.Parts"),
    "admin reap": (["admin", "reap"], "s3seg.app.Parts"),
    "token": (["token", "--user", "ann"], "s3seg.app.Parts"),
    "db migrate": (["db", "migrate"], "s3seg.app.settings.Settings"),
    "db status": (["db", "status"], "s3seg.app.settings.Settings"),
    "db sql": (["db", "sql"], "s3seg.app.settings.Settings"),
    "serve": (["serve"], "s3seg.app.settings.Settings"),
    "serve edge": (["serve", "edge"], "s3seg.app.settings.Settings"),
    "serve gpu": (["serve", "gpu"], "s3seg.app.settings.Settings"),
    "worker": (["worker"], "s3seg.app.settings.Settings"),
    "models list": (["models", "list"], "s3seg.checkpoints.inventory"),
    "models pull": (["models", "pull"], "s3seg.checkpoints.pull"),
    "models verify": (["models", "verify"], "s3seg.checkpoints.verify"),
    "models path": (["models", "path"], "s3seg.checkpoints.resolve"),
    "doctor": (["doctor"], "s3seg.commands.doctor.machine.examine"),
    "doctor --services": (["doctor", "--services"], "s3seg.app.Parts"),
    "segment": (["segment", "PICTURE", "car"], "s3seg.checkpoints.resolve"),
}


@pytest.fixture(params=COMMANDS)
def failing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, s3seg: Command, picture: GetPicture, tmp_path: Path
):
    """Run a command whose first step raises an error."""
    arguments, first_step = COMMANDS[request.param]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("s3seg.web.logs.configure_logging", lambda: None)  # pytest's own logging stays

    def run(error: BaseException, *before: str):
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(first_step, fail)
        return s3seg(*before, *(str(picture("shapes")) if word == "PICTURE" else word for word in arguments))

    return run


def test_a_failed_command_prints_one_message_and_exits_with_1(failing) -> None:
    done = failing(errors.ConfigurationError("S3SEG_POLL_S is too small"))
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "error: S3SEG_POLL_S is too small\n")


def test_arguments_that_cannot_be_used_exit_with_2(failing) -> None:
    done = failing(errors.InvalidRequestError("the name is empty"))
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", "error: the name is empty\n")


def test_debug_prints_the_traceback_before_the_message(failing) -> None:
    done = failing(errors.ConfigurationError("S3SEG_POLL_S is too small"), "--debug")
    assert done.exit_code == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "test_errors.py" in done.stderr
    assert done.stderr.endswith("\nerror: S3SEG_POLL_S is too small\n")


def test_the_environment_turns_debug_on(failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3SEG_DEBUG", "1")
    assert "Traceback" in failing(errors.UnavailableError("the database does not answer")).stderr


def test_ctrl_c_exits_with_130_and_prints_nothing(failing) -> None:
    done = failing(KeyboardInterrupt())
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "")


def test_an_operating_system_error_names_its_file(failing) -> None:
    done = failing(PermissionError(13, "Permission denied", "/data/tasks.db"))
    assert (done.exit_code, done.stderr) == (1, "error: /data/tasks.db: Permission denied\n")


def test_a_bug_is_reported_as_one(failing) -> None:
    done = failing(ZeroDivisionError("division by zero"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unexpected ZeroDivisionError: division by zero\nThis is a bug in s3seg.")
    assert "s3seg --debug" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["admin", "tier", "ann", "gold"],
        ["admin", "credits", "ann", "many"],
        ["token"],
        ["db", "upgrade"],
        ["serve", "--port", "0"],
        ["serve", "gpu", "--insecure-no-key", "--host", "0.0.0.0"],
        ["worker", "now"],
        ["models", "pull", "--branch"],
        ["doctor", "everything"],
        ["segment", "--box"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(
    s3seg: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("s3seg.web.logs.configure_logging", lambda: None)
    done = s3seg(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "rror: " in done.stderr
    assert "Traceback" not in done.stderr


def test_only_unusable_arguments_count_as_wrong_usage() -> None:
    assert exit_code(errors.PromptError("the prompt is empty")) == 2
    assert exit_code(errors.ImageDecodeError("cat.png: not a picture")) == 1
    assert exit_code(errors.CheckpointNotFoundError("no checkpoint 'sam3'")) == 1
    assert exit_code(FileNotFoundError()) == 1


def test_main_exits_with_the_code_of_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "s3seg", "models", "path", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no checkpoint ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--port", "9000", "gpu"], "--port must come after the command: s3seg serve gpu --port"),
        (["mcp", "--port", "9000"], "--port needs --http"),
        (["segment", "a.png", "cat", "--token", "x"], "--token is for a service"),
        (["segment", "a.png", "cat", "--calibration", "c.json", "--threshold", "0.5"], "leave out --threshold"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    s3seg: Command, picture: GetPicture, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = s3seg(*(picture("street") if argument == "a.png" else argument for argument in arguments))
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_download_without_a_name_is_refused(s3seg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S3SEG_CHECKPOINT")
    monkeypatch.setenv("S3SEG_DATA_DIR", str(tmp_path))
    done = s3seg("serve", "gpu", "--pull", "--insecure-no-key")
    assert done.exit_code == 1
    assert "--pull needs a name" in done.stderr

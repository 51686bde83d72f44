"""Behaviour that needs a subprocess: exit codes of signals, closed pipes, terminals, imports."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from s3seg import Segmentation, __version__
from tests.commands.running import GetPicture, command, process, words


@pytest.fixture
def heard_sigint() -> Iterator[None]:
    """Ctrl-C reaches programs that a test starts; in a shell's background it is ignored, and they inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_sigint")
def test_ctrl_c_leaves_only_complete_files_and_resume_does_the_rest(picture: GetPicture, tmp_path: Path) -> None:
    pictures, out, found = tmp_path / "pictures", tmp_path / "out", tmp_path / "found.jsonl"
    pictures.mkdir()
    for k in range(15):
        shutil.copy(picture("shapes"), pictures / f"{k:02d}.png")
    arguments = ("segment", pictures, "star", "--overlay", out, "--mask", out, "--jsonl", "-o", found, "--resume")
    with subprocess.Popen(words(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        _wait_for(lambda: len(list(out.glob("*.overlay.png"))) >= 2)
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout) == (130, ""), stderr
    assert "stopped: after" in stderr
    assert "with --resume to continue" in stderr
    assert "Traceback" not in stderr
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.overlay.png")}
    assert 2 <= len(before) < 15, "it was to be stopped in the middle"
    assert not list(out.glob(".*.tmp"))
    for file in out.glob("*.png"):
        with Image.open(file) as whole:
            whole.load()
    for line in found.read_text().splitlines():
        Segmentation.from_dict(json.loads(line))

    with found.open("ab") as file:
        file.write(b'{"format": "s3seg.segm')
    done = command(*arguments)
    assert done.exit_code == 0
    skipped = int(next(line for line in done.stderr.splitlines() if "done by an earlier run" in line).split()[0])
    assert len(before) - 1 <= skipped <= len(before)
    assert len(list(out.glob("*.overlay.png"))) == len(list(out.glob("*.star.mask.png"))) == 15
    again = sum(path.stat().st_mtime_ns != then for path, then in before.items())
    assert again == len(before) - skipped
    sources = [json.loads(line)["source"] for line in found.read_text().splitlines()]
    assert sorted(sources) == [str(pictures / f"{k:02d}.png") for k in range(15)]


def test_a_closed_output_pipe_ends_the_command_quietly(picture: GetPicture) -> None:
    command = words("segment", picture("shapes"), picture("street"), "star", "--jsonl", "-q")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        stderr = running.stderr.read()
    assert (running.returncode, stderr) == (141, b"")


def test_a_picture_comes_from_standard_input(picture: GetPicture) -> None:
    done = process("segment", "-", "star", "--json", input=picture("shapes").read_bytes())
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert len(result["instances"]) > 1


def test_a_terminal_on_standard_input_is_refused() -> None:
    returncode, _, screen = _on_a_terminal(words("segment", "-", "star"), type_into=True)
    assert returncode == 2
    assert "nothing is piped into it" in screen


def test_progress_goes_to_a_terminal_on_stderr_and_results_alone_to_stdout(picture: GetPicture) -> None:
    command = words("segment", picture("shapes"), picture("street"), "star", "--jsonl")
    returncode, stdout, screen = _on_a_terminal(command)
    assert returncode == 0
    assert [json.loads(line)["prompt"] for line in stdout.splitlines()] == ["star", "star"]
    assert "looking for star" in screen
    assert "\x1b[" in screen
    assert "checkpoint: " in screen


def test_no_color_is_respected_on_a_terminal(picture: GetPicture) -> None:
    _, _, screen = _on_a_terminal(words("models", "list"), variables={"NO_COLOR": "1"})
    assert "* default" in screen
    assert "\x1b[3" not in screen


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["segment", "--help"],
        ["models", "list"],
        ["models", "path"],
        ["models", "pull", "-h"],
    ],
)
def test_these_commands_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom s3seg.cli import main\n"
        f"sys.argv = ['s3seg', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'huggingface_hub', 'transformers', 'httpx', 'starlette'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_help_of_the_root_imports_neither_rich_nor_pydantic_nor_asyncio() -> None:
    script = (
        "import sys\nfrom s3seg.cli import main\nsys.argv = ['s3seg', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'rich', 'pydantic', 'asyncio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_version_and_completion_of_python_m_s3seg() -> None:
    assert process("--version").stdout.decode() == f"s3seg {__version__}\n"
    environment = {**os.environ, "_S3SEG_COMPLETE": "complete_bash", "COMP_WORDS": "s3seg mod", "COMP_CWORD": "1"}
    assert process(env=environment).stdout.decode().split() == ["models"]


def _wait_for(condition: object) -> None:
    for _ in range(6000):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.01)
    pytest.fail("the condition did not hold within a minute")


def _on_a_terminal(
    command: list[str], *, type_into: bool = False, variables: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run with stderr (and stdin) on a terminal: exit code, what came on stdout, what the screen was sent."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **(variables or {})}
    stdin = theirs if type_into else subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
    ) as running:
        os.close(theirs)
        screen = b""
        with contextlib.suppress(OSError):  # Linux says "input/output error" when the other side is closed
            while data := os.read(ours, 65536):
                screen += data
        assert running.stdout
        stdout = running.stdout.read()
    os.close(ours)
    return running.returncode, stdout, screen.decode()

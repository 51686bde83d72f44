"""`s3seg models` and `s3seg doctor`, with a mirror on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from s3seg import checkpoints
from s3seg.cli import app
from s3seg.commands.doctor import machine
from s3seg.commands.doctor.machine import Compute, Finding
from tests.helpers.loopback import Mirror


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "S3SEG_CHECKPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at its import


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    files = {path.name: path.read_bytes() for path in checkpoints.resolve("embedded").files}
    with Mirror(files).running() as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror.endpoint)
        yield mirror


def s3seg(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="s3seg")


def _defaults(listing: str) -> list[str]:
    return [line.split()[1] for line in listing.splitlines() if line.startswith(" *")]


def test_models_list_shows_what_is_here_and_how_to_download_the_rest() -> None:
    done = s3seg("models", "list")
    assert done.exit_code == 0
    assert _defaults(done.stdout) == ["embedded"]
    assert "s3seg models pull sam3" in done.stdout
    assert str(checkpoints.resolve("embedded").path) in done.stdout.replace("\n", "")
    rows = json.loads(s3seg("models", "list", "--json").stdout)
    assert [(row["name"], row["here"], row["default"]) for row in rows] == [
        ("embedded", True, True),
        ("sam3", False, False),
    ]


def test_a_default_that_is_not_here_does_not_keep_the_list_from_showing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3SEG_CHECKPOINT", "sam3")
    done = s3seg("models", "list")
    assert done.exit_code == 0
    assert "S3SEG_CHECKPOINT is set to 'sam3'" in done.stderr
    assert "embedded" in done.stdout


def test_pull_prints_the_folder_and_makes_it_the_default(mirror: Mirror) -> None:
    done = s3seg("models", "pull", "sam3")
    assert done.exit_code == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == mirror.files["model.safetensors"]
    assert s3seg("models", "path").stdout.strip() == str(folder)
    assert _defaults(s3seg("models", "list").stdout) == ["sam3"]
    assert s3seg("models", "verify").stdout.count("verified: ") == len(mirror.files)


def test_a_gated_repository_is_one_clear_message_and_exit_code_1(mirror: Mirror) -> None:
    mirror.token = "the right one"
    done = s3seg("models", "pull", "sam3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "licence" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_exits_with_1_when_a_file_is_cut_off(tmp_path: Path) -> None:
    whole = checkpoints.resolve("embedded")
    assert s3seg("models", "verify", "embedded").exit_code == 0
    for file in whole.files:
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:-100] if file.name == "model.safetensors" else content)
    done = s3seg("models", "verify", tmp_path)
    assert done.exit_code == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(" ✗")] == ["model.safetensors"]


def test_an_unknown_name_is_reported_with_the_known_ones() -> None:
    done = s3seg("models", "path", "embeded")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "did you mean 'embedded'" in done.stderr


def test_doctor_shows_every_finding_and_exits_with_1_only_for_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    # Querying torch takes seconds, and has its own test.
    monkeypatch.setattr(machine, "compute_in_subprocess", lambda: Compute(("cpu",), "cpu", "float32", 2))
    done = s3seg("doctor")
    assert done.exit_code == 0, done.stdout
    for topic in ("python", "torch", "device", "checkpoint embedded", "hugging face"):
        assert topic in done.stdout
    assert "can segment on this machine" in done.stderr
    broken = Finding("torch", "problem", "not installed", "pip install torch")
    monkeypatch.setattr(machine, "examine", lambda: [broken])
    done = s3seg("doctor")
    assert done.exit_code == 1
    assert "pip install torch" in done.stdout

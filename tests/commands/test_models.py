"""`s3seg models` and `s3seg doctor`, with a mirror on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from typer.testing import CliRunner, Result

from s3seg import checkpoints
from s3seg.app.settings import Settings
from s3seg.cli import app
from s3seg.commands import models
from s3seg.commands.doctor import machine
from s3seg.commands.doctor.machine import Compute, Finding
from tests.helpers.loopback import Mirror


@pytest.fixture(autouse=True)
def _online(own_hub_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert [(row["name"], row["here"], row["default"], row["account_needed"]) for row in rows] == [
        ("embedded", True, True, False),
        ("litetext", False, False, False),
        ("litetext-s1", False, False, False),
        ("litetext-l", False, False, False),
        ("sam3", False, False, True),
        ("sam3.1", False, False, True),
        ("unsloth/sam3.1", False, False, False),
    ]
    assert all(row["licence"] and row["size"] for row in rows)
    assert "SAM License; needs an account" in done.stdout


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
    assert "s3seg models pull litetext" in done.stderr.splitlines()[-2]
    assert "s3seg models pull unsloth/sam3.1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture
def lite_text(mirror: Mirror) -> Mirror:
    mirror.repo_id, mirror.gated, mirror.card = "vil-uob/sam3-litetext-s0", False, {"license": "apache-2.0"}
    return mirror


def test_pull_shows_size_source_and_licences_and_downloads_nothing_if_nobody_can_answer(lite_text: Mirror) -> None:
    done = s3seg("models", "pull", "litetext")
    assert (done.exit_code, done.stdout) == (1, "")
    for part in (
        "10.8 MB",
        f"{lite_text.endpoint}/vil-uob/sam3-litetext-s0 (no account needed)",
        "https://www.apache.org/licenses/LICENSE-2.0",
        "https://github.com/facebookresearch/sam3/blob/main/LICENSE",
        "not with these files",
        "--accept-license",
    ):
        assert part in done.stderr.replace("\n", " "), part
    assert lite_text.asked_for("?signed") == []


@pytest.mark.parametrize(("answer", "exit_code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_pull_asks_once_on_a_terminal(
    lite_text: Mirror, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int
) -> None:
    monkeypatch.setattr(models, "_can_ask", lambda: True)
    done = CliRunner().invoke(app, ["models", "pull", "litetext", "--quiet"], prog_name="s3seg", input=answer)
    assert done.exit_code == exit_code
    assert done.stderr.count("Do you accept these licences?") == 1
    assert "SAM License" in done.stderr
    assert bool(lite_text.asked_for("?signed")) == (exit_code == 0)


def test_accept_license_asks_nothing_and_is_remembered(lite_text: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_can_ask", lambda: True)
    done = s3seg("models", "pull", "litetext", "--accept-license")
    assert done.exit_code == 0, done.stderr
    assert "Do you accept" not in done.stderr
    (Path(done.stdout.strip()) / "model.safetensors").unlink()
    for blob in (Path(done.stdout.strip()).parents[1] / "blobs").iterdir():
        blob.unlink()
    again = s3seg("models", "pull", "litetext")
    assert again.exit_code == 0, again.stderr
    assert "Do you accept" not in again.stderr
    assert _defaults(s3seg("models", "list").stdout) == ["litetext"]


def test_where_nobody_watches_a_large_download_is_told_in_tenths(
    lite_text: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_LARGE_FILE", 1_000_000)
    done = s3seg("models", "pull", "litetext", "--accept-license")
    told = re.findall(r"model.safetensors: (\d+) % of [\d.]+ MB", done.stderr)
    assert told[-1] == "100"
    assert len(set(told)) == len(told) <= 10
    assert "merges.txt" not in done.stderr, "small files are not told"


@pytest.mark.parametrize("command", [["worker"], ["serve", "gpu", "--insecure-no-key"]], ids=["worker", "serve gpu"])
def test_services_pull_missing_weights_before_they_start(
    lite_text: Mirror, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    started: list[str] = []

    async def work(settings: Settings) -> None:
        started.append(str(checkpoints.resolve(settings.checkpoint).path))

    monkeypatch.setattr("s3seg.commands.worker._work", work)
    monkeypatch.setattr(
        "s3seg.commands.serve._run_with_worker", lambda service, settings, host, port: asyncio.run(work(settings))
    )
    monkeypatch.setattr("s3seg.web.logs.configure_logging", lambda: None)
    refused = s3seg(*command, "--checkpoint", "litetext")
    assert (refused.exit_code, lite_text.requests) == (1, []), "without --pull nothing is downloaded"
    refused = s3seg(*command, "--checkpoint", "litetext", "--pull")
    assert refused.exit_code == 1
    assert "--accept-license" in refused.stderr
    assert started == []
    monkeypatch.setenv("S3SEG_ACCEPT_LICENSE", "1")
    done = s3seg(*command, "--checkpoint", "litetext", "--pull")
    assert done.exit_code == 0, done.stderr
    downloads = len(lite_text.asked_for("?signed"))
    assert downloads > 0
    again = s3seg(*command, "--checkpoint", "litetext", "--pull")
    assert again.exit_code == 0, again.stderr
    assert len(started) == 2
    assert len(lite_text.asked_for("?signed")) == downloads, "what is here is not downloaded again"


def test_verify_try_finds_what_is_drawn() -> None:
    done = s3seg("models", "verify", "embedded", "--try")
    assert done.exit_code == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith(" "))
    assert lines["found"].startswith("1 (scores: ")
    assert 0.5 < float(lines["found"].removeprefix("1 (scores: ").removesuffix(")")) <= 1
    assert 0.9 < float(lines["overlap"].split()[0]) <= 1
    assert lines["model"].startswith("s3seg-embedded")


def test_verify_try_exits_with_1_if_the_weights_find_nothing(tmp_path: Path) -> None:
    for file in checkpoints.resolve("embedded").files:
        shutil.copy(file, tmp_path)
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    zeros = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    safetensors.numpy.save_file(zeros, tmp_path / "model.safetensors")
    done = s3seg("models", "verify", tmp_path, "--try")
    assert done.exit_code == 1
    assert "was not found where it is drawn" in done.stderr
    assert "0 (scores: none)" in done.stdout


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

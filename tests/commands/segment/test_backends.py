from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from s3seg import checkpoints
from s3seg.commands.segment.backends import LocalBackend, choose_backend
from s3seg.commands.segment.options import ModelOptions
from s3seg.errors import InvalidRequestError
from tests.commands.running import Command, GetPicture

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A pulled repository with two commits, of which main is the older one."""
    folder = tmp_path / "hf" / "hub" / "models--facebook--sam3"  # `conftest` sets HF_HOME
    for commit in (OLD, NEW):
        shutil.copytree(checkpoints.resolve("embedded").path, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(OLD)
    return folder


def test_the_weights_of_the_resume_key_are_the_ones_that_are_loaded(repository: Path) -> None:
    backend = choose_backend(ModelOptions(checkpoint="sam3", device="cpu"), boxes=False)
    assert isinstance(backend, LocalBackend)
    assert backend.checkpoint.commit == OLD
    (repository / "refs" / "main").write_text(NEW)  # a pull that ends between the two
    assert checkpoints.resolve("sam3").commit == NEW
    assert backend.load().checkpoint == backend.checkpoint


def test_a_run_resolves_its_checkpoint_once(
    s3seg: Command, picture: GetPicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = []
    resolve = checkpoints.resolve

    def counting(*arguments, **options):
        resolved.append(arguments)
        return resolve(*arguments, **options)

    monkeypatch.setattr(checkpoints, "resolve", counting)
    assert s3seg("segment", picture("shapes"), "star", "--checkpoint", "embedded").exit_code == 0
    assert resolved == [("embedded",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ModelOptions(url="http://x", checkpoint="sam3"), "--checkpoint cannot be used with --url"),
        (ModelOptions(url="http://x", device="cpu"), "--device cannot be used with --url"),
        (ModelOptions(url="http://x", dtype="float32", image_size=112), "--dtype, --image-size cannot be used"),
    ],
)
def test_options_of_the_local_model_are_refused_for_a_service(options: ModelOptions, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        choose_backend(options, boxes=False)


def test_boxes_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints.resolve("embedded").path, tmp_path / "words-only"))
    config = folder / "config.json"
    values = json.loads(config.read_text())
    values["s3seg"]["box_prompts"] = False
    config.write_text(json.dumps(values))
    options = ModelOptions(checkpoint=str(folder))
    assert choose_backend(options, boxes=False).identity()
    with pytest.raises(InvalidRequestError, match="does not support boxes; use a text prompt"):
        choose_backend(options, boxes=True)
    with pytest.raises(InvalidRequestError, match="boxes cannot be used with --url"):
        choose_backend(ModelOptions(url="http://x"), boxes=True)

"""Resolution of checkpoint names on this machine. Nothing here uses the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from s3seg import checkpoints
from s3seg.errors import CheckpointError, CheckpointNotFoundError

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def _out_of_reach(own_hub_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.chdir(tmp_path)


def _checkpoint(folder: Path, *, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for file in checkpoints.resolve("embedded").files:
        if file.name != without:
            shutil.copy(file, folder)
    return folder


def _in_cache(repo_id: str, *, commit: str = COMMIT, main: bool = True, without: str = "") -> Path:
    root = checkpoints.hub_cache() / f"models--{repo_id.replace('/', '--')}"
    if main:
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text(commit)
    return _checkpoint(root / "snapshots" / commit, without=without)


def test_the_embedded_checkpoint_is_whole() -> None:
    embedded = checkpoints.resolve("embedded")
    assert (embedded.origin, embedded.version) == ("embedded", "embedded")
    assert checkpoints.verify(embedded).ok
    assert 0 < embedded.size_bytes < 30e6


def test_the_default_is_the_embedded_one_until_the_full_one_is_here() -> None:
    assert checkpoints.resolve().name == "embedded"
    snapshot = _in_cache("facebook/sam3")
    assert checkpoints.resolve().path == snapshot
    assert checkpoints.resolve().version == "facebook/sam3@aaaaaaaa"


def test_a_half_pulled_full_checkpoint_does_not_become_the_default() -> None:
    _in_cache("facebook/sam3", without="model.safetensors")
    assert checkpoints.resolve().name == "embedded"
    with pytest.raises(CheckpointNotFoundError, match=r"incomplete \(model.safetensors missing\)"):
        checkpoints.resolve("sam3")


def _lite_text(repo_id: str) -> Path:
    folder = _in_cache(repo_id)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sam3_lite_text"}))
    return folder


def _accepted(repo_id: str) -> None:
    """Leave the record that a pull leaves."""
    licence = {"name": "SAM License", "url": "https://example.org", "covers": "the weights", "text_hash": None}
    record = checkpoints.hub_cache() / f"models--{repo_id.replace('/', '--')}" / "s3seg-licences.json"
    record.write_text(json.dumps({"accepted_at": "2026-01-01T00:00:00+00:00", "licences": [licence]}))


def test_the_default_is_full_sam3_then_light_text_then_embedded() -> None:
    defaults = []
    for repo_id in ("vil-uob/sam3-litetext-l", "vil-uob/sam3-litetext-s0"):
        _lite_text(repo_id)
        defaults.append(checkpoints.resolve().repo_id)
    for repo_id in ("org/copy-of-sam3", "unsloth/sam3.1", "facebook/sam3", "facebook/sam3.1"):
        _in_cache(repo_id)
        _accepted(repo_id)
        defaults.append(checkpoints.resolve().repo_id)
    assert defaults == [
        "vil-uob/sam3-litetext-l",
        "vil-uob/sam3-litetext-s0",
        "org/copy-of-sam3",
        "unsloth/sam3.1",
        "facebook/sam3",
        "facebook/sam3.1",
    ]


def test_a_repository_becomes_the_default_only_if_it_was_pulled_with_s3seg() -> None:
    _in_cache("org/found-in-the-cache")
    assert checkpoints.resolve().name == "embedded"
    _lite_text("org/distilled")
    _accepted("org/distilled")
    assert checkpoints.resolve().name == "embedded"


@pytest.mark.parametrize("name", ["sam3.1_multiplex.pt", "sam3.pt", "sam3.safetensors", "tuned.pt"])
def test_weights_with_the_names_of_the_reference_need_no_configuration(tmp_path: Path, name: str) -> None:
    folder = _checkpoint(tmp_path / "mine", without="config.json")
    (folder / "model.safetensors").rename(folder / name)
    assert {file.name for file in checkpoints.resolve(folder).files} == {
        name,
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_weights_of_any_name_are_found_if_there_is_one_such_file(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "mine")
    (folder / "model.safetensors").rename(folder / "tuned.safetensors")
    assert [file.name for file in checkpoints.resolve(folder).files][-1] == "tuned.safetensors"
    shutil.copy(folder / "tuned.safetensors", folder / "other.safetensors")
    with pytest.raises(CheckpointNotFoundError, match=r"several weight files .* other\.\w+, tuned"):
        checkpoints.resolve(folder)


def test_a_repository_with_several_weights_of_unknown_names_does_not_break_the_inventory() -> None:
    folder = _in_cache("org/several")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    (item,) = [item for item in checkpoints.inventory() if item.name == "org/several"]
    assert item.checkpoint is None
    assert checkpoints.resolve().name == "embedded"


def test_the_environment_variable_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _in_cache("facebook/sam3")
    folder = _checkpoint(tmp_path / "mine")
    monkeypatch.setenv("S3SEG_CHECKPOINT", str(folder))
    assert checkpoints.resolve().path == folder
    assert checkpoints.resolve("embedded").name == "embedded"
    monkeypatch.setenv("S3SEG_CHECKPOINT", "nowhere")
    with pytest.raises(CheckpointNotFoundError, match="S3SEG_CHECKPOINT is set to 'nowhere'"):
        checkpoints.resolve()
    monkeypatch.setenv("S3SEG_CHECKPOINT", "  ")
    assert checkpoints.resolve().name == "sam3"


def test_an_unpulled_checkpoint_is_an_error_with_the_command_that_gets_it() -> None:
    with pytest.raises(CheckpointNotFoundError, match="s3seg models pull sam3") as caught:
        checkpoints.resolve("sam3")
    assert "accept its licence first, at https://huggingface.co/facebook/sam3" in str(caught.value)
    assert "s3seg models pull litetext" in str(caught.value)
    with pytest.raises(CheckpointNotFoundError, match=r"s3seg models pull litetext$"):
        checkpoints.resolve("litetext")
    with pytest.raises(CheckpointNotFoundError, match="s3seg models pull org/repo --revision v2"):
        checkpoints.resolve("org/repo", revision="v2")


def test_a_local_path_beats_a_repository_of_the_same_spelling(tmp_path: Path) -> None:
    cached = _in_cache("org/repo")
    assert checkpoints.resolve("org/repo").path == cached
    _checkpoint(tmp_path / "org" / "repo")
    local = checkpoints.resolve("org/repo")
    assert (local.origin, local.path) == ("local", Path("org/repo"))


def test_a_known_name_beats_a_folder_of_that_name(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "embedded")
    assert checkpoints.resolve("embedded").origin == "embedded"
    assert checkpoints.resolve("./embedded").origin == "local"


def test_a_weights_file_is_a_checkpoint_with_its_folder(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "mine")
    checkpoint = checkpoints.resolve(folder / "model.safetensors")
    assert checkpoint.folder == folder
    assert checkpoint.path.is_file()
    with pytest.raises(CheckpointError, match="not a weights file"):
        checkpoints.resolve(folder / "config.json")


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_that_is_not_whole_says_what_it_lacks(tmp_path: Path, missing: str) -> None:
    folder = _checkpoint(tmp_path / "mine", without=missing)
    with pytest.raises(CheckpointNotFoundError, match=f"{missing} missing"):
        checkpoints.resolve(folder)


@pytest.mark.parametrize(
    "tokenizer", [("vocab.json", "merges.txt"), ("bpe_simple_vocab_16e6.txt.gz",), ("tokenizer.json",)]
)
def test_the_reference_layout_needs_only_weights_and_a_tokenizer(tmp_path: Path, tokenizer: tuple[str, ...]) -> None:
    for name in ("sam3.pt", *tokenizer):
        (tmp_path / name).write_bytes(b"x")
    assert checkpoints.resolve(tmp_path).path == tmp_path


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "mine", without="model.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / shards["a"]).write_bytes(b"")
    with pytest.raises(CheckpointNotFoundError, match=r"model-00002-of-00002\.safetensors missing"):
        checkpoints.resolve(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a valid index of weights"):
        checkpoints.resolve(folder)


def test_a_newer_commit_that_is_not_whole_leaves_the_older_in_use() -> None:
    old = _in_cache("facebook/sam3", commit="b" * 40)
    _in_cache("facebook/sam3", commit="c" * 40, without="model.safetensors")
    assert checkpoints.resolve("sam3").path == old


def test_a_revision_is_found_by_its_commit() -> None:
    _in_cache("org/repo")
    other = _in_cache("org/repo", commit="d" * 40, main=False)
    assert checkpoints.resolve("org/repo", revision="d" * 40).path == other
    with pytest.raises(CheckpointNotFoundError):
        checkpoints.resolve("org/repo", revision="e" * 40)


@pytest.mark.parametrize("name", ["sam4", "", "C:\\weights\\sam3", "a/b/c", "../up", "./nothing", "x" * 5000])
def test_what_names_nothing_is_an_error_that_lists_what_can_be_named(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match="embedded, litetext, litetext-s1, litetext-l, sam3, "):
        checkpoints.resolve(name)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(CheckpointNotFoundError, match="did you mean 'embedded'"):
        checkpoints.resolve("embeded")


def test_the_inventory_lists_known_names_and_other_sam3_in_the_cache() -> None:
    _in_cache("org/tuned")
    other = checkpoints.hub_cache() / "models--org--bert" / "snapshots" / COMMIT
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model_type": "bert"}')
    items = {item.name: item for item in checkpoints.inventory()}
    known = ["embedded", "litetext", "litetext-s1", "litetext-l", "sam3", "sam3.1", "unsloth/sam3.1"]
    assert list(items) == [*known, "org/tuned"]
    assert items["sam3"].checkpoint is None
    assert items["sam3"].size_bytes == 0
    assert items["org/tuned"].size_bytes == checkpoints.resolve("embedded").size_bytes


def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert checkpoints.hub_cache() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "$HOME/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoints.hub_cache() == tmp_path / "elsewhere"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert checkpoints.hub_cache() == tmp_path / "xdg" / "huggingface" / "hub"


@given(st.dictionaries(st.text(min_size=1).filter(lambda n: n != "__metadata__"), st.integers(0, 50), max_size=4))
def test_what_safetensors_writes_is_accepted_and_any_cut_of_it_refused(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    whole = safetensors.numpy.save({name: np.zeros(size, np.float32) for name, size in sizes.items()})
    path.write_bytes(whole)
    checkpoints.check_safetensors(path)
    for broken in (whole[:4], whole[:-1], whole + b"x", b"<html>" + whole):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            checkpoints.check_safetensors(path)
